"""Views per second and peak memory of one optimisation step: DCCD against timm's own distillation tasks.

    python benchmarks/step.py                                  # resnet34 -> resnet18 at 224 px; CUDA when there is one
    python benchmarks/step.py --images 4 --rounds 5 --device cpu
    python benchmarks/step.py --dtype float16 --compile --profile  # also the most expensive operations
    python benchmarks/step.py --methods all                    # what a step of each method costs beside two-view KD

All tasks take the same stacked batch of views in the same process, in turns, so that a change of the machine's speed
affects all of them. Ratios are medians over rounds of (this task / that task) within one round. --methods takes the
names of benchmarks/compare.py, and needs what that needs.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch
from timm.task import FeatureDistillationTask, LogitDistillationTask, TrainingTask
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.task.build import build_task

TASKS = ("timm logit", "timm feature", "dccd, weights 0", "dccd")


def build(name: str, args: argparse.Namespace, device: torch.device) -> TrainingTask:
    """A new task with random weights: speed does not depend on them."""
    torch.manual_seed(0)
    if args.methods is not None:
        return finished(build_method(args.methods[name], args, device), args)
    student = timm.create_model(args.student, num_classes=args.classes).to(device)
    teacher = timm.create_model(args.teacher, num_classes=args.classes).to(device)
    teacher.eval().requires_grad_(False)
    shared: dict[str, Any] = dict(criterion=nn.CrossEntropyLoss(), device=device, verbose=False)
    if name == "timm logit":
        task: TrainingTask = LogitDistillationTask(student, teacher, temperature=4.0, **shared)
    elif name == "timm feature":
        task = FeatureDistillationTask(student, teacher, **shared)
    else:
        weights: dict[str, Any] = {}
        if name != "dccd":
            weights = dict(contrast_loss_weight=0.0, difference_loss_weight=0.0)
        if args.dtype != "float32" and device.type == "cuda":  # as train.py does it
            weights |= dict(teacher_dtype=getattr(torch, args.dtype))
        task = DCCDTask(
            student,
            teacher,
            views=args.views,
            input_size=(3, args.size, args.size),
            teacher_img_size="student",
            **weights,
            **shared,
        )
    return finished(task, args)


def build_method(flags: list[str], args: argparse.Namespace, device: torch.device) -> TrainingTask:
    """The task of a method of benchmarks/compare.py, as train.py builds it from these ``flags``."""
    networks = ["--model", args.student, "--kd-model-name", args.teacher, "--kd-teacher-img-size", "student"]
    recipe = load_recipe(["--data-dir", ".", *networks, *flags])
    student = timm.create_model(args.student, num_classes=args.classes)
    teacher = timm.create_model(args.teacher, num_classes=args.classes)
    mean, std = (student.pretrained_cfg[name] for name in ("mean", "std"))
    config = DataConfig(input_size=(3, args.size, args.size), mean=mean, std=std)  # type: ignore[typeddict-item]
    half = args.dtype != "float32" and device.type == "cuda"
    return build_task(recipe, student, teacher, config, False, device, getattr(torch, args.dtype) if half else None)


def finished(task: TrainingTask, args: argparse.Namespace) -> TrainingTask:
    """The task in the layout of memory that is asked for, compiled if wanted."""
    if args.channels_last:
        for module in task.children():
            module.to(memory_format=torch.channels_last)
    if args.compile:
        task.compile()
    return task.train()


def step(
    task: TrainingTask,
    optimizer: torch.optim.Optimizer,
    scaler: Any,
    images: Any,
    target: Any,
    args: argparse.Namespace,
) -> None:
    """Run forward, backward and update."""
    half = args.dtype != "float32"
    with torch.autocast(images.device.type, dtype=getattr(torch, args.dtype) if half else None, enabled=half):
        loss = task(images, target)["loss"]
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


def prepare(name: str, args: argparse.Namespace, device: torch.device) -> tuple[Any, ...]:
    """Task, optimizer and one stacked batch."""
    task = build(name, args, device)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=0.01, momentum=0.9)
    count = args.images * args.views
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, args.size, args.size, generator=generator).to(device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    scaler = torch.amp.GradScaler(device.type, enabled=args.dtype == "float16")
    target = (torch.arange(args.images, device=device) % args.classes).repeat(args.views)  # view-major, as the images
    return task, optimizer, scaler, images, target, args


def timed(run: tuple[Any, ...], device: torch.device) -> float:
    """Seconds of one step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step(*run)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_memory(name: str, args: argparse.Namespace, queue: Any) -> None:
    """Peak memory of two steps in MB: allocated on CUDA, resident of this process on the CPU."""
    device = torch.device(args.device)
    run = prepare(name, args, device)
    for _ in range(2):
        step(*run)
    cuda = device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    queue.put(peak)


def parse_arguments() -> argparse.Namespace:
    """The command line; defaults depend on whether there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cuda = torch.cuda.is_available()
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--teacher", default="resnet34")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--images", type=int, default=128 if cuda else 8)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50 if cuda else 9)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16" if cuda else "float32"
    )
    parser.add_argument("--compile", action="store_true", help="compile student and teacher of every task")
    parser.add_argument("--profile", action="store_true", help="print the most expensive operations of the DCCD step")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="methods of benchmarks/compare.py beside two-view KD; all for every",
    )
    args = parser.parse_args()
    if args.methods is not None:
        from benchmarks.compare import CONTROL, choose_methods

        if args.views != 2 or args.profile:
            parser.error("--methods times two views, and has no --profile")
        wanted = args.methods if "all" in args.methods else [CONTROL, *args.methods]
        args.methods = choose_methods(list(dict.fromkeys(wanted)), [])
    return args


def measure_memory(args: argparse.Namespace) -> dict[str, float]:
    """Peak memory of each task in MB, each in a process of its own."""
    memory = {}
    context = multiprocessing.get_context("spawn")
    for name in TASKS:
        queue = context.Queue()
        process = context.Process(target=peak_memory, args=(name, args, queue))
        process.start()
        memory[name] = queue.get()
        process.join()
    return memory


def measure_seconds(runs: dict[str, tuple[Any, ...]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of one step of each task, in turns."""
    names = list(runs)
    for run in runs.values():
        step(*run)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # another order in each round: a step changes the caches for the next one
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(timed(runs[name], device))
    return seconds


def print_methods(seconds: dict[str, list[float]], count: int) -> None:
    """Each method's step beside that of two-view KD: the median of the ratios, and their quartiles."""
    from benchmarks.compare import CONTROL

    print(f"| method | step / step of {CONTROL} | quartiles | views/s |\n|---|---|---|---|")
    for name, values in seconds.items():
        ratios = [own / other for own, other in zip(values, seconds[CONTROL], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        print(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {count / statistics.median(values):.1f} |")


def main() -> None:
    """Time the tasks in turns and print ratios."""
    args = parse_arguments()
    device = torch.device(args.device)
    memory = measure_memory(args) if args.methods is None else {}
    runs = {name: prepare(name, args, device) for name in args.methods or TASKS}
    seconds = measure_seconds(runs, args.rounds, device)
    count = args.images * args.views
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.teacher} -> {args.student}, {args.size} px, {args.images} images x {args.views} views, {where},"
          f" {args.dtype}{', compiled' if args.compile else ''}, {'channels-last' if args.channels_last else 'NCHW'},"
          f" {args.rounds} rounds, torch {torch.__version__}, timm {timm.__version__}")  # fmt: skip
    if args.methods is not None:
        print_methods(seconds, count)
        return
    print("| task | views/s | peak memory (MB) | " + " | ".join(f"time / {name}" for name in TASKS[:3]) + " |")
    print("|" + "---|" * 6)
    for name in TASKS:
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)) for other in TASKS[:3]
        ]
        cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"| {name} | {count / statistics.median(seconds[name]):.1f} | {memory[name]:.0f} | {cells} |")
    if args.profile:
        with torch.profiler.profile() as profile:
            step(*runs["dccd"])
        key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        print(profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=50))


if __name__ == "__main__":
    main()
