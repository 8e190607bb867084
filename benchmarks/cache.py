"""What --kd-cache gains: training that reads a teacher's kept answers, against three others, and how fast it reads.

    OMP_NUM_THREADS=2 python benchmarks/cache.py                       # ViT-B teaches mobilenetv4_conv_small, 2 cores
    python benchmarks/cache.py --teacher resnet34 --student resnet18   # another pair

JPEGs of 500 x 375 pixels, two views of each, SGD, float32, loaded in the training's own process so that a step and its
images are timed together. All variants take one step each in turns, in one process, so that a change of the machine's
speed affects all of them; a ratio is the median over rounds of the ratio within a round. Speed is in views per second:
timm's loader gives one view of an image, and its batch has as many views as ours.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import pyarrow.parquet as pq
import timm
import torch
from accelerate import Accelerator
from timm.data import create_dataset, create_loader
from timm.task import LogitDistillationTask
from torch import nn

from benchmarks.loader import write_images
from dccd_timm.batch import fold_views
from dccd_timm.cache.form import Form
from dccd_timm.cache.store import AnswerStore
from dccd_timm.engine.step import training_step
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.run.pieces import Training, build_training, open_splits

READING, FILLING, NONE, TIMM = "reads its answers", "without a cache", "without a teacher", "timm's loader and KD"
# Of reading: at least this part of the speed without a teacher, this many times the others', this many views a second.
GOALS, VIEWS = {NONE: 0.95, FILLING: 5.0, TIMM: 5.0}, 3000
Step = Callable[[], None]


def write_folder(folder: Path, count: int) -> None:
    """Class folders of the JPEGs that benchmarks/loader.py makes."""
    (folder / "parquet").mkdir()
    write_images(folder / "parquet", count, 1)
    rows = next((folder / "parquet").iterdir())
    for number, row in enumerate(pq.read_table(rows).to_pylist()):
        path = folder / "images" / "train" / f"{row['label']:03d}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["image"]["bytes"])


def flags(args: argparse.Namespace, folder: Path, *more: str) -> Recipe:
    """A recipe of the benchmark's images, networks and two views."""
    words = f"--data-dir {folder / 'images'} --val-split= --model {args.student} --num-classes {args.classes}"
    words += f" --img-size {args.size} -b {args.batch} -j 0 --dccd-views 2 --dccd-view-period 1 --device cpu"
    words += " --opt momentum --lr 0.001 --sched none --epochs 1000"
    if "none" not in more:
        words += f" --kd-model-name local-dir:{folder / 'teacher'} --kd-teacher-img-size student"
    return load_recipe([*words.split(), *more])


def build(recipe: Recipe, accelerator: Accelerator) -> Training:
    """A training as train.py builds it."""
    return build_training(recipe, open_splits(recipe), accelerator, 0, None)


def fill(recipe: Recipe, accelerator: Accelerator) -> None:
    """Answer all images once."""
    training = build(recipe, accelerator)
    assert training.answers is not None and training.answers.teacher is not None and training.answers.teacher.form
    training.answers.begin(None)
    batches, teacher = iter(training.loader), training.answers.teacher
    for _ in range(training.loader.batches_per_epoch):
        batch = next(batches)
        teacher(fold_views(batch.views, batch.target)[0], teacher.form.stages)
    training.answers.end_epoch()
    training.answers.close()
    training.loader.close()


def ours(recipe: Recipe, accelerator: Accelerator) -> Step:
    """One step of a training, with the reading of its batch."""
    training = build(recipe, accelerator)
    training.task.train()
    batches = iter(training.loader)

    def step() -> None:
        training_step(training.task, next(batches), training.optimizer, recipe, accelerator, lambda: True)

    return step


def timms(args: argparse.Namespace, folder: Path) -> Step:
    """One step as timm's train.py takes it: its reader, loader and KD, one view of each image."""
    data = create_dataset("", root=str(folder / "images"), split="train", is_training=True)
    loader = create_loader(
        data, input_size=(3, args.size, args.size), batch_size=2 * args.batch, is_training=True, color_jitter=0.4,
        num_workers=0, persistent_workers=False, device=torch.device("cpu"), use_prefetcher=False,
    )  # fmt: skip
    student = timm.create_model(args.student, num_classes=args.classes)
    teacher = timm.create_model(f"local-dir:{folder / 'teacher'}", pretrained=True).eval().requires_grad_(False)
    task = LogitDistillationTask(student, teacher, criterion=nn.CrossEntropyLoss(), temperature=4.0, verbose=False)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.001, momentum=0.9)
    batches = endless(loader)
    task.train()

    def step() -> None:
        images, target = next(batches)
        task(images, target)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def endless(loader: torch.utils.data.DataLoader) -> Iterator:
    """Batches of a loader, epoch after epoch."""
    while True:
        yield from loader


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of one step of each, in turns, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def reading_speed(form: Form, images: int, folder: Path) -> tuple[float, int]:
    """Views per second that one process reads at random from files in the disk's cache, and bytes of an image."""
    folder.mkdir()
    store = AnswerStore(folder)
    store.writes = True
    for first in range(0, images, 500):
        seeds = torch.arange(first, min(first + 500, images))
        logits = torch.randn(2 * len(seeds), form.classes)
        rows = form.pack(logits, [torch.randn(2 * len(seeds), *shape) for shape in form.maps])
        store.add(seeds, torch.zeros_like(seeds), rows)
    store.flush()
    store.refresh()
    order = torch.randperm(images).split(128)
    seconds = []
    for batch in order * 3:
        began = time.perf_counter()
        rows, found = store.read(batch)
        form.unpack(rows, torch.device("cpu"))
        seconds.append((time.perf_counter() - began) / len(batch))
        assert found.all()
    return 2 / statistics.median(seconds[len(order) :]), form.image_bytes


def parse(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="vit_base_patch16_224")
    parser.add_argument("--student", default="mobilenetv4_conv_small")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="images of a batch, of two views each")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=4000, help="images whose answers are read in the second part")
    return parser.parse_args(words)


def compare(args: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The lines of the first part."""
    write_folder(folder, args.images)
    teacher = timm.create_model(args.teacher, num_classes=args.classes)
    timm.models.save_for_hf(teacher, folder / "teacher", safe_serialization="both")
    kept = flags(args, folder, "--kd-distill-type", "dccd", "--kd-cache", str(folder / "answers"))
    accelerator = start_accelerator(kept)
    fill(kept, accelerator)
    steps = {
        READING: ours(kept, accelerator),
        FILLING: ours(flags(args, folder, "--kd-distill-type", "dccd"), accelerator),
        NONE: ours(flags(args, folder, "--kd-distill-type", "none"), accelerator),
        TIMM: timms(args, folder),
    }
    seconds = measure(steps, args.rounds)
    threads = torch.get_num_threads()
    yield f"{args.teacher} -> {args.student}, {args.size} px, {args.batch} images x 2 views, {threads} threads"
    for name, found in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(found, seconds[READING], strict=True))
        goal = f"  (goal: {GOALS[name]:g})" if name in GOALS else ""
        speed = 2 * args.batch / statistics.median(found)
        yield f"  {name:<20} {speed:8.1f} views/s   reading / it {ratio:6.3f}{goal}"


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    args = parse(words)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for line in compare(args, folder):
            print(line, flush=True)
        print(f"reading alone, one process, {args.rows} images at random (goal: {VIEWS} views/s)")
        for what, maps in (("logits", ()), ("logits and map 384x7x7", ((384, 7, 7),))):
            form = Form("float16", 0.0, args.classes, 2, (3,) * len(maps), maps)
            speed, size = reading_speed(form, args.rows, folder / what.replace(" ", "-"))
            print(f"  {what:<24} {speed:10.0f} views/s   {size} bytes an image")


if __name__ == "__main__":
    main()
