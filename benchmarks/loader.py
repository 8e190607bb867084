"""Images and views per second of the data path, against its limit and against timm's own reader.

    OMP_NUM_THREADS=1 python benchmarks/loader.py                    # about 4 minutes on 2 cores
    OMP_NUM_THREADS=1 python benchmarks/loader.py --memory 20000     # also: does memory stay flat?

JPEGs of 500 x 375 pixels in parquet; two views of 224 pixels of each, uint8, timm's default augmentation. All variants
are measured in turns in one run, so that a change of the machine's speed affects all of them. "Per busy core" divides
by the CPU seconds of the process and its workers, not by wall time.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import datasets
import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, create_transform

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.decode import decode
from dccd_timm.data.fast import FastViews, decode_pixels
from dccd_timm.data.sources import open_split
from dccd_timm.data.views import MultiViewTransform
from dccd_timm.recipe import load_recipe

CONFIG = dict(input_size=(3, 224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic",
              crop_pct=0.875)  # fmt: skip
Meter = Callable[[int], tuple[float, float]]  # batches -> wall seconds, CPU seconds


def write_images(folder: Path, count: int, shards: int) -> float:
    """Parquet shards of JPEGs, quality 90, with detail at every scale; returns their mean size in kB."""
    rng = np.random.default_rng(0)
    large = np.zeros((1500, 2000, 3))
    for octave in range(1, 10):
        grid = rng.normal(size=(2**octave * 3 // 4 + 1, 2**octave + 1, 3)).astype(np.float32)
        planes = [
            np.asarray(Image.fromarray(grid[..., c]).resize((2000, 1500), Image.Resampling.BICUBIC)) for c in range(3)
        ]
        large += np.stack(planes, -1) / octave**0.7
    large += rng.normal(size=large.shape) * 0.25
    large = ((large - large.min()) / (large.max() - large.min()) * 255).astype(np.uint8)
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    sizes = []
    for shard in range(shards):
        rows: dict[str, list[Any]] = {"image": [], "label": []}
        for number in range(shard, count, shards):
            y, x = rng.integers(0, 1125), rng.integers(0, 1500)
            buffer = io.BytesIO()
            Image.fromarray(large[y : y + 375, x : x + 500]).save(buffer, "JPEG", quality=90)
            rows["image"].append({"bytes": buffer.getvalue(), "path": f"{number}.jpg"})
            rows["label"].append(number % 1000)
            sizes.append(buffer.tell() / 1000)
        path = folder / f"train-{shard:05d}-of-{shards:05d}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return statistics.mean(sizes)


def cpu_seconds() -> float:
    """CPU seconds of this process and its running children."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def in_memory(images: list[bytes], view: Callable[[bytes], Any], batch: int) -> Meter:
    """A plain loop in this process."""
    endless = iter(lambda: None, 0)

    def measure(batches: int) -> tuple[float, float]:
        began, cpu = time.perf_counter(), cpu_seconds()
        for number, _ in zip(range(batches * batch), endless, strict=False):
            view(images[number % len(images)])
        return time.perf_counter() - began, cpu_seconds() - cpu

    return measure


def from_loader(make: Callable[[], Iterator[Any]], warm_up: int) -> Meter:
    """Batches of a loader, once its workers are running."""

    def measure(batches: int) -> tuple[float, float]:
        loader = make()
        for _ in range(warm_up):
            next(loader)
        began, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(batches):
            next(loader)
        return time.perf_counter() - began, cpu_seconds() - cpu

    return measure


def ours(folder: Path, batch: int, workers: int, *flags: str) -> Iterator[Any]:
    """This package's loader."""
    source_flags = ["--dataset", f"hfids/{folder}", "-b", str(batch), "-j", str(workers), "--dccd-views", "2"]
    recipe = load_recipe([*source_flags, "--kd-distill-type", "none", *flags])
    source = open_split(recipe, "train", True, None)
    loader = build_train_loader(recipe, source, CONFIG, 1000, Rank(torch.device("cpu")))
    return iter(loader.loader)


def timms(folder: Path, images: int, batch: int, workers: int) -> Iterator[Any]:
    """timm's hfids reader and loader, with two splits that share crop and flip, as its --aug-splits 2 makes them."""
    dataset = create_dataset(
        f"hfids/{folder}", root=None, split="train", is_training=True, batch_size=batch, num_samples=images
    )
    loader = create_loader(
        dataset, CONFIG["input_size"], batch, is_training=True, num_workers=workers, num_aug_splits=2,
        device=torch.device("cpu"), persistent_workers=False,
    )  # fmt: skip
    shared, jitter, last = create_transform(224, is_training=True, use_prefetcher=True, separate=True)

    def splits(image: Any) -> tuple[Any, Any]:
        image = shared(image)
        return last(image), last(jitter(image))

    dataset.transform = splits
    return iter(loader.loader)


def memory_of_workers() -> float:
    """Unshared memory of this process's children in MB."""
    return sum(p.memory_full_info().uss for p in psutil.Process().children(recursive=True)) / 2**20


def build_meters(folder: Path, images: int, batch: int) -> dict[str, Meter]:
    """Every variant by its name; ``folder`` has the parquet shards of so many ``images``."""
    encoded = [row["bytes"] for row in pq.read_table(next(folder.glob("*.parquet")))["image"].to_pylist()]
    views = MultiViewTransform(create_transform(224, is_training=True, use_prefetcher=True), views=2)
    fast, one, warm = FastViews(views.transforms), views.transforms[0], 6
    meters: dict[str, Meter] = {
        "a: in memory, decode + two timm views (the limit)": in_memory(
            encoded, lambda d: views(decode(d, "RGB")), batch
        ),
        "a': in memory, our decode and views": in_memory(encoded, lambda d: fast(decode_pixels(d, "RGB")), batch),
        "d: in memory, decode twice": in_memory(encoded, lambda d: [one(decode(d, "RGB")) for _ in range(2)], batch),
    }
    for workers in (0, 1, 2):
        meters[f"b: this loader, -j {workers}, --pil-views"] = from_loader(
            partial(ours, folder, batch, workers, "--pil-views"), warm
        )
        meters[f"b': this loader, -j {workers}"] = from_loader(partial(ours, folder, batch, workers), warm)
    for workers in (1, 2):
        meters[f"c: timm's hfids, {workers} workers, shared crops"] = from_loader(
            partial(timms, folder, images, batch, workers), warm
        )
    return meters


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=12, help="batches per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", type=int, default=0, metavar="IMAGES", help="also measure memory over this many images"
    )
    args = parser.parse_args()
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_images(folder, args.images, shards=8)
        meters = build_meters(folder, args.images, args.batch)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in meters}
        for _ in range(args.rounds):
            for name, measure in meters.items():
                times[name].append(measure(args.batches))
        report(times, args.batches * args.batch, size)
        if args.memory:
            watch_memory(folder, args.batch, args.memory)


def report(times: dict[str, list[tuple[float, float]]], images: int, size: float) -> None:
    """Print rates and ratios: medians over rounds."""
    limit, twice = (next(name for name in times if name.startswith(letter)) for letter in ("a:", "d:"))

    def ratio(name: str, other: str) -> float:
        return statistics.median(o[1] / m[1] for m, o in zip(times[name], times[other], strict=True))

    print(f"JPEGs of {size:.0f} kB, {images} images per measurement, torch {torch.__version__}")
    print("| | images/s | views/s | images/s per busy core | against a, per busy core | against d |")
    print("|---|---|---|---|---|---|")
    for name, rounds in times.items():
        rate = statistics.median(images / clock for clock, _ in rounds)
        busy = statistics.median(images / cpu for _, cpu in rounds)
        print(
            f"| {name} | {rate:.0f} | {2 * rate:.0f} | {busy:.0f} | {ratio(name, limit):.2f} |"
            f" {ratio(name, twice):.2f} |"
        )


def watch_memory(folder: Path, batch: int, images: int) -> None:
    """Print the workers' memory after each tenth of ``images``."""
    loader = ours(folder, batch, 2)
    readings = []
    for number in range(1, images // batch + 1):
        next(loader)
        if number % max(1, images // batch // 10) == 0:
            readings.append(memory_of_workers())
    print(f"memory of two workers over {images} images (MB): {', '.join(f'{r:.0f}' for r in readings)}")


if __name__ == "__main__":
    main()
