"""Seconds until the programs show their first line, and until --help is printed.

    python benchmarks/startup.py --rounds 5

Prints the median of so many starts of each command, after one that is not counted, and beside it the processor's
seconds, which other programs on the machine do not change. It ends with code 1 when --help takes more than 1 s, or the
first line of a start more than 3 s.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = ["--data-dir", "/no/such/folder", "--device", "cpu"]
COMMANDS = {
    "dccd-timm --help": (["-m", "dccd_timm", "--help"], 1.0),
    "dccd-timm --version": (["-m", "dccd_timm", "--version"], 1.0),
    "train.py --help": (["train.py", "--help"], 1.0),
    "train.py --help-all": (["train.py", "--help-all"], 1.0),
    "validate.py --help": (["validate.py", "--help"], 1.0),
    "dccd-timm push --help": (["-m", "dccd_timm", "push", "--help"], 1.0),
    "dccd-timm pull --help": (["-m", "dccd_timm", "pull", "--help"], 1.0),
    "dccd-timm report --help": (["-m", "dccd_timm", "report", "--help"], 1.0),
    "a flag mistyped": (["train.py", "--lrr", "0.1"], 1.0),
    "train.py, first line": (["train.py", *START], 3.0),
    "validate.py, first line": (["validate.py", "--model", "resnet18", *START], 3.0),
}


def first_line(words: list[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processor until a command shows a line or ends; it is then stopped."""
    begin, used = time.perf_counter(), _children()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - begin
        process.kill()
    return seconds, _children() - used


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    late = []
    print(f"{'command':<26} {'seconds':>8} {'processor':>10} {'at most':>8}")
    for name, (words, limit) in COMMANDS.items():
        first_line(words)
        times = [first_line(words) for _ in range(rounds)]
        seconds, processor = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:<26} {seconds:8.2f} {processor:10.2f} {limit:8.0f}", flush=True)
        late += [name] if seconds > limit else []
    if late:
        sys.exit(f"too late: {', '.join(late)}")


if __name__ == "__main__":
    main()
