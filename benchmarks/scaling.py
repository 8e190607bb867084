"""Cost of the contrast's global statistics: bytes and time on 1 and 2 processes here, calculated for many GPUs.

    python benchmarks/scaling.py

For C teacher channels a step sums 1 + 3 C + 2 C^2 float32 numbers over the ranks with soft targets, 1 + 4 C + C^2 with
hard ones, whatever the batch; nothing is sent in the backward pass. A ring moves 2 (W - 1) / W of them in and out of
each of W ranks. The second table is calculated: it divides that by bandwidths that are assumptions and not measured
(--nvlink, --network).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import timm
import torch
import torch.distributed as dist

from dccd_timm import DCCDTask
from dccd_timm.losses import ChannelContrastiveLoss, products

PAIRS = (("resnet50", "resnet18"), ("vit_base_patch16_224", "vit_small_patch16_224"))


def numbers(channels: int, targets: str) -> int:
    """float32 numbers that one step sums over the ranks."""
    means, own = 1 + 2 * channels, channels**2 if targets == "soft" else channels
    return means + channels + channels**2 + own


def measure(args: argparse.Namespace) -> None:
    """On each rank: time forward and backward of the contrast, and count the bytes that are summed."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo")
    sent: list[int] = []
    all_reduce = dist.all_reduce

    def counted(value: torch.Tensor, *rest: object, **more: object) -> object:
        sent.append(value.numel() * value.element_size())
        return all_reduce(value, *rest, **more)

    products.dist.all_reduce = counted
    results = []
    for channels in args.channels:
        for targets in ("hard", "soft"):
            loss = ChannelContrastiveLoss(targets=targets)
            student = torch.randn(args.samples, channels, 7, 7, requires_grad=True)
            teacher = torch.randn(args.samples, channels, 7, 7)
            times = []
            for number in range(args.rounds + 1):
                sent.clear()
                began = time.perf_counter()
                loss(student, teacher).backward()
                if number:
                    times.append(1000 * (time.perf_counter() - began))
            results.append([channels, targets, sum(sent), statistics.median(times)])
    if world == 1 or dist.get_rank() == 0:
        Path(args.results).write_text(json.dumps(results))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def run_ranks(processes: int, args: argparse.Namespace) -> list[list]:
    """Results of ``processes`` ranks that :func:`measure` runs in."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        given = ["--results", str(results), "--samples", str(args.samples), "--rounds", str(args.rounds), "--channels"]
        command = [sys.executable, *(launch if processes > 1 else []), __file__, *given, *map(str, args.channels)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return json.loads(results.read_text())


def calculate(args: argparse.Namespace) -> None:
    """Print a row for each pair, beside what DDP sends anyway."""
    print(
        f"\nCalculated, assuming {args.nvlink:g} GB/s in a machine of 8 GPUs, {args.network:g} GB/s between machines:"
    )
    print("| pair | C | summed per step (MB) | DDP's gradients (MB) | 8 GPUs (ms) | 64 GPUs (ms) |")
    print("|---|---|---|---|---|---|")
    for teacher, student in PAIRS:
        task = DCCDTask(
            timm.create_model(student), timm.create_model(teacher), verbose=False, device=torch.device("cpu")
        )
        channels = timm.create_model(teacher).feature_info[task.teacher_stages[0]]["num_chs"]
        size = 4e-6 * numbers(channels, "soft")
        gradients = 4e-6 * sum(p.numel() for p in task.trainable_module.parameters())
        times = [
            f"{2 * (ranks - 1) / ranks * size / bandwidth:.2f}"
            for ranks, bandwidth in ((8, args.nvlink), (64, args.network))
        ]
        print(f"| {teacher} -> {student} | {channels} | {size:.1f} | {gradients:.1f} | {' | '.join(times)} |")


def main() -> None:
    """Measure here, then calculate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[512, 768, 2048])
    parser.add_argument("--samples", type=int, default=32, help="per rank; maps are 7 x 7")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--nvlink", type=float, default=300.0, help="GB/s between the GPUs of a machine")
    parser.add_argument("--network", type=float, default=40.0, help="GB/s between machines")
    parser.add_argument("--results", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.results:
        measure(args)
        return
    print(f"contrast, forward and backward, {args.samples} samples of 7 x 7 and one thread per rank, gloo on loopback")
    print("| C | targets | summed per step (MB) | by the formula (MB) | 1 process (ms) | 2 processes (ms) | ratio |")
    print("|---|---|---|---|---|---|---|")
    for (channels, targets, _, one), (_, _, size, two) in zip(run_ranks(1, args), run_ranks(2, args), strict=True):
        formula, size = 4e-6 * numbers(channels, targets), size / 1e6
        print(f"| {channels} | {targets} | {size:.2f} | {formula:.2f} | {one:.1f} | {two:.1f} | {two / one:.2f} |")
    calculate(args)


if __name__ == "__main__":
    main()
