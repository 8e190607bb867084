"""Interrupt a small training in many ways, resume it, and compare the student bit by bit with an uninterrupted one.

    python benchmarks/survival.py --cases 25 --seed 0 --output /tmp/survival

Each case draws at random: data (image folder or parquet stream), processes (1 or 2), and two or three interruptions:
SIGKILL or SIGTERM in an update, in a save or in a validation, of any rank. Every fifth case also has a full disk (a
tmpfs, so this needs root on Linux) that is enlarged later. The program ends with code 1 if any student differs.
"""

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import safetensors.torch
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.conftest import write_folders, write_parquet  # noqa: E402

STUDENT = ["--model", "resnetv2_18", "--model-kwargs", "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8"]
FUNCTIONS = {"update": "training_step", "save": "save_state", "validation": "evaluate"}


def launch(arguments: list[str], processes: int, sabotage: str = "") -> tuple[int, str]:
    """Run the program as a user would; return its exit code and stderr."""
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'fakes' / 'saboteur'}"}
    done = subprocess.run(
        [sys.executable, *(ranks if processes > 1 else []), str(ROOT / "train.py"), *arguments],
        capture_output=True, text=True, timeout=600, env=env | ({"SABOTAGE": sabotage} if sabotage else {}),
    )  # fmt: skip
    return done.returncode, done.stderr


def flags(data: str, folder: Path, processes: int, output: Path, name: str) -> list[str]:
    """Flags of a training of 12 updates in which everything random is switched on."""
    source = ["--data-dir", str(folder / "folders"), "--val-split", "validation"]
    if data == "stream":
        source = ["--dataset", f"hfids/{folder / 'parquet'}", "--val-split", "test"]
    return [
        *source, *STUDENT, "--kd-model-name", f"local-dir:{folder / 'teacher'}", "--kd-distill-type", "dccd",
        "--img-size", "48", "-b", str(12 // processes), "-vb", "2", "-j", "2", "--epochs", "3", "--lr", "0.05",
        "--warmup-epochs", "1", "--recovery-interval", "1", "--drop", "0.2", "--reprob", "0.5", "--mixup", "0.2",
        "--dccd-view-aug", "near", "--dccd-views", "3", "--model-ema", "--output", str(output), "--experiment", name,
    ]  # fmt: skip


@contextlib.contextmanager
def small_disk(folder: Path):
    """A tmpfs of 3 MB."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def same_student(first: Path, second: Path) -> bool:
    """Whether two runs ended with bitwise the same student."""
    a, b = (safetensors.torch.load_file(run / "last" / "model.safetensors") for run in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_and_resume(
    arguments: list[str], processes: int, interruptions: list[str], disk: Path | None
) -> list[str]:
    """Run into each interruption, then to the end; return what happened."""
    events = []
    for interruption in interruptions:
        if interruption == "disk":
            code, stderr = launch(arguments, processes)
            errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
            events.append("disk: " + ("one line" if code and len(errors) == 1 and "cannot be written" in errors[0] else
                                    f"UNEXPECTED code {code}: {stderr[-500:]}"))  # fmt: skip
            subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
            continue
        code, _ = launch(arguments, processes, interruption)
        events.append(f"{interruption}: code {code}")
        if code == 0:  # it ended before the interruption
            return events
    code, stderr = launch(arguments, processes)
    events.append("end" if code == 0 else f"UNEXPECTED code {code}: {stderr[-500:]}")
    return events


def prepare(base: Path) -> None:
    """Write the data, train the teacher, and train the uninterrupted students."""
    shutil.rmtree(base, ignore_errors=True)
    write_folders(base / "folders"), write_parquet(base / "parquet")
    code, stderr = launch(
        ["--data-dir", str(base / "folders"), *STUDENT, "--img-size", "48", "-b", "16", "--epochs", "2", "--lr", "0.05",
         "--warmup-epochs", "0", "--output", str(base), "--experiment", "t"], 1)  # fmt: skip
    assert code == 0, stderr
    (base / "t" / "best").rename(base / "teacher")
    for data in ("folder", "stream"):
        for processes in (1, 2):
            code, stderr = launch(flags(data, base, processes, base / "whole", f"{data}{processes}"), processes)
            assert code == 0, stderr


def run_case(case: int, base: Path, dice: random.Random, kinds: Counter[str]) -> bool:
    """Draw one case, run it and print it; whether its student is the same. ``kinds`` counts the interruptions."""
    data, processes = dice.choice(("folder", "stream")), dice.choice((1, 1, 2))
    interruptions = []
    for _ in range(dice.choice((2, 3))):
        stage, name = dice.choice(list(FUNCTIONS)), dice.choice(("SIGKILL", "SIGTERM"))
        interruptions.append(f"{FUNCTIONS[stage]}:{name}:{dice.randint(1, 3)}:{dice.randrange(processes)}")
        kinds[f"{name} in {stage}"] += 1
    with contextlib.ExitStack() as stack:
        output, disk = base / f"case{case}", None
        if case % 5 == 4:
            output = disk = stack.enter_context(small_disk(output))
            interruptions.insert(0, "disk")
            kinds["full disk"] += 1
        began = time.monotonic()
        arguments = [*flags(data, base, processes, output, "cut"), "--resume", "auto"]
        events = interrupt_and_resume(arguments, processes, interruptions, disk)
        same = same_student(base / "whole" / f"{data}{processes}", output / "cut")
    good = same and "UNEXPECTED" not in " ".join(events)
    result = "bitwise the same" if good else "DIFFERENT"
    seconds = time.monotonic() - began
    print(f"case {case}: {data} x {processes}, {'; '.join(events)}: {result}, {seconds:.0f} s", flush=True)
    return good


def main() -> None:
    """Draw the cases at random and run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output/survival"))
    options = parser.parse_args()
    base = options.output.resolve()
    prepare(base)
    dice, kinds = random.Random(options.seed), Counter[str]()
    bad = sum(not run_case(case, base, dice, kinds) for case in range(options.cases))
    print(f"{options.cases - bad} of {options.cases} bitwise the same; interruptions: {dict(kinds)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
