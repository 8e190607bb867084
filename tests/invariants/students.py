"""Train short runs on the CPU and print a hash of each student, to show that a change of the code changes no student.

    python tests/invariants/students.py --against ROOT      # train with this checkout and with ROOT, and compare
    python tests/invariants/students.py --out FILE          # save the table of this checkout
    python tests/invariants/students.py --expect FILE       # compare this checkout with a saved table

Hashes are only valid on one machine and with one set of libraries, so none is kept in the repository.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.conftest import CLASSES, write_folders, write_parquet  # noqa: E402

Row = dict[str, str]
INTERRUPTED = 75  # exit code of a run that saved its state after a signal


@dataclass(frozen=True)
class Case:
    """One training: its flags, where its images come from, and how it is started."""

    flags: str
    images: str = "stream"
    processes: int = 1
    interrupt: bool = False


COMMON = "--epochs 2 --img-size 48 -b 12 -j 1 --lr 0.05 --warmup-epochs 0 --device cpu"
RESNET = "--model test_resnet --kd-model-name local-dir:{resnet_teacher}"
PLAIN_RESNET = "--model test_resnet"
SMOOTH = "--model test_efficientnet_gn --kd-model-name local-dir:{resnet_teacher}"
VIT = "--model test_vit --kd-model-name local-dir:{vit_teacher}"
TOKEN = (
    "--model deit_tiny_distilled_patch16_224 --model-kwargs depth=2 embed_dim=48 num_heads=3"
    " --kd-model-name local-dir:{resnet_teacher}"
)
IMAGES = {
    "stream": "--dataset hfids/{stream} --val-split test",
    "folder": "--data-dir {folder} --val-split validation",
}
CASES = {
    "none-stream": Case(f"{PLAIN_RESNET} --kd-distill-type none --aa rand-m9-mstd0.5-inc1 --reprob 0.5 -j 2"),
    "logit-folder-mixup-ema": Case(
        f"{RESNET} --kd-distill-type logit --mixup 0.2 --cutmix 1 --model-ema --model-ema-decay 0.9", "folder"
    ),
    "feature-stream-accumulated": Case(
        f"{VIT} --kd-distill-type feature --grad-accum-steps 2 -b 6 --opt adamw --lr 0.002 --layer-decay 0.7"
        " --clip-grad 1 --drop-path 0.1"
    ),
    "token-folder": Case(f"{TOKEN} --kd-distill-type token --dccd-views 2 --bce-loss --opt lamb -j 0", "folder"),
    "dccd-stream": Case(f"{RESNET} --kd-distill-type dccd --drop 0.2 --sched-on-updates --eval-metric loss"),
    "dccd-folder-near-ema": Case(
        f"{RESNET} --kd-distill-type dccd --dccd-views 3 --dccd-view-aug near --model-ema --mixup 0.2 --resplit"
        " --reprob 0.5 -j 2 --channels-last",
        "folder",
    ),
    "dccd-stream-accumulated": Case(
        f"{SMOOTH} --kd-distill-type dccd --grad-accum-steps 2 -b 6 --dccd-view-aug weak-strong --split-bn"
        " --dccd-contrast-negatives student --dccd-contrast-targets hard --dccd-difference-loss mse"
    ),
    "dccd-control": Case(f"{RESNET} --kd-distill-type dccd --dccd-control logit --smoothing 0"),
    "dccd-resumed": Case(
        f"{RESNET} --kd-distill-type dccd -b 4 --recovery-interval 1 --checkpoint-hist 2 --model-ema --drop 0.2"
        " --mixup 0.2 -j 2",
        interrupt=True,
    ),
    "dccd-two-processes": Case(f"{RESNET} --kd-distill-type dccd -b 6 --clip-grad 1", processes=2),
}


def save_teacher(folder: Path, model: str, **arguments: object) -> None:
    """Save a network with random weights, and a larger head so that its answers are far from uniform."""
    torch.manual_seed(0)
    teacher = timm.create_model(model, num_classes=len(CLASSES), **arguments)
    with torch.no_grad():
        teacher.get_classifier().weight.mul_(20)
    save_for_hf(teacher, folder, model_args=arguments, data_config=dict(input_size=(3, 48, 48)))  # as the students'


def write_inputs(folder: Path) -> dict[str, Path]:
    """Write images and teachers once; return their folders by the names that the flags of the cases use."""
    inputs = {name: folder / name for name in ("stream", "folder", "resnet_teacher", "vit_teacher")}
    write_parquet(inputs["stream"])
    write_folders(inputs["folder"])
    save_teacher(inputs["resnet_teacher"], "test_resnet")
    save_teacher(inputs["vit_teacher"], "test_vit", img_size=48)
    return inputs


def sha256(*files: Path) -> str:
    """Hash of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def conditions(inputs: dict[str, Path]) -> Row:
    """What two tables must have in common to be comparable: libraries, processor and inputs."""
    files = [file for folder in inputs.values() for file in sorted(folder.rglob("*")) if file.is_file()]
    libraries = {name: version(name) for name in ("torch", "timm", "accelerate", "datasets", "torchvision", "pillow")}
    return {**libraries, "cpu": torch.backends.cpu.get_cpu_capability(), "inputs": sha256(*files)}


def environment(root: Path) -> dict[str, str]:
    """Environment of a program that imports the package of this checkout, on one thread of the CPU."""
    settings = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **settings}


def check_root(root: Path) -> None:
    """Exit unless programs that run in ``root`` import the package of ``root``."""
    script = "import dccd_timm; print(dccd_timm.__file__)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=True)
    if root not in Path(done.stdout.strip()).parents:
        sys.exit(f"error: programs in {root} import {done.stdout.strip()}")


def run_training(root: Path, arguments: list[str], processes: int, interrupt_in: Path | None = None) -> None:
    """Run train.py to its end, or send SIGTERM once the run folder ``interrupt_in`` has a state of its third update."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), "train.py", *arguments]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=root, env=environment(root), stdout=output, stderr=subprocess.STDOUT)
        if interrupt_in:
            while process.poll() is None and not list(interrupt_in.glob("state/update-*[3-9]")):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
        code = process.wait()
        if code != (INTERRUPTED if interrupt_in else 0):
            output.seek(0)
            sys.exit(f"{output.read()}\nerror: exit code {code}: {' '.join(command)} in {root}")


def hash_losses(table: Path) -> str:
    """Hash of summary.csv without the column of views per second."""
    with table.open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "train_views_per_second"} for row in csv.DictReader(stream)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def hash_run(run: Path) -> Row:
    """Hashes of a run's last and best student and of its losses, and of its control if it has one."""
    row = {name: sha256(run / name / "model.safetensors") for name in ("last", "best")}
    row["losses"] = hash_losses(run / "summary.csv")
    if (run / "control").is_dir():
        row |= {f"control/{name}": value for name, value in hash_run(run / "control").items()}
    return row


def train(root: Path, case: Case, inputs: dict[str, Path], run: Path) -> Row:
    """Hashes of the case's student, trained by the code in ``root`` in the folder ``run``."""
    flags = f"{COMMON} {IMAGES[case.images]} {case.flags}".format(**inputs).split()
    flags += ["--output", str(run.parent), "--experiment", run.name]
    if "allow_weak_teacher" in (root / "dccd_timm" / "recipe" / "distil.py").read_text() and "--kd-model-name" in flags:
        flags.append("--allow-weak-teacher")  # older code takes any
    if case.interrupt:
        run_training(root, flags, case.processes, interrupt_in=run)
        flags += ["--resume", str(run)]
    run_training(root, flags, case.processes)
    return hash_run(run)


def print_row(name: str, row: Row) -> None:
    """One line for the student, and one for its control."""
    for prefix in ("", "control/"):
        if f"{prefix}last" in row:
            hashes = (row[f"{prefix}{column}"][:16] for column in ("last", "best", "losses"))
            print(f"{prefix + name:36}", *hashes, flush=True)


def differences(row: Row, expected: Row) -> list[str]:
    """Columns in which a case's hashes are not those expected."""
    return [column for column in sorted(row.keys() | expected.keys()) if row.get(column) != expected.get(column)]


def compare(rows: dict[str, Row], expected: dict[str, Row], label: str) -> int:
    """Print a line for each case that differs; return the exit code."""
    differing = 0
    for name, row in rows.items():
        if columns := differences(row, expected.get(name, {})):
            print(f"DIFFERENT: {name}: {', '.join(columns)} not as with {label}")
            differing += 1
    if not differing:
        print(f"the same as with {label}: {len(rows)} of {len(rows)} cases")
    return 1 if differing else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout whose code trains (default: this one)")
    parser.add_argument(
        "--against", type=Path, help="another checkout: it trains the same cases, to compare (second line of each case)"
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="train these cases only")
    parser.add_argument("--out", type=Path, help="write the table to this JSON file")
    parser.add_argument("--expect", type=Path, help="compare with the table in this JSON file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train, print, save and compare; the exit code is 1 when a student differs."""
    chosen = parse(arguments)
    roots = [root.resolve() for root in (chosen.root, chosen.against) if root]
    for root in roots:
        check_root(root)
    tables: list[dict[str, Row]] = [{} for _ in roots]
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder))
        made_with = conditions(inputs)
        expected = json.loads(chosen.expect.read_text()) if chosen.expect else None
        if expected and expected["made_with"] != made_with:
            sys.exit(f"error: {chosen.expect} cannot be compared: {expected['made_with']} is not {made_with}")
        print(f"{'case':36}", *(f"{column:16}" for column in ("last", "best", "losses")))
        for name in chosen.only:
            for number, root in enumerate(roots):
                tables[number][name] = train(root, CASES[name], inputs, Path(folder) / f"runs-{number}" / name)
                print_row(name, tables[number][name])
    if chosen.out:
        chosen.out.write_text(json.dumps({"made_with": made_with, "students": tables[0]}, indent=2) + "\n")
    code = 0
    if chosen.against:
        code |= compare(tables[0], tables[1], str(chosen.against))
    if expected:
        code |= compare(tables[0], expected["students"], str(chosen.expect))
    return code


if __name__ == "__main__":
    sys.exit(main())
