"""Methods x seeds on one recipe: last-epoch top-1, mean and spread, paired with a control at equal views and steps.

    python benchmarks/compare.py -c recipes/quickstart.yaml --seeds 42 43 44 --jobs 2 --output output/compare
    python benchmarks/compare.py -c R.yaml --methods "two-view KD" DCCD --method 'hard=--dccd-contrast-targets hard'

A method of your own adds its flags to the recipe, as they would stand behind `train.py -c`. Finished runs are kept and
cut ones go on, so a comparison that was stopped is started again by the same command. It leaves comparison.md,
comparison.csv (a row a method), runs.csv (a row a run) and comparison.png in the output folder.
"""

import argparse
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.comparison import draw, markdown, summarise, write_csv  # noqa: E402
from dccd_timm.errors import UserError  # noqa: E402
from dccd_timm.recipe import load_recipe  # noqa: E402

CONTROL = "two-view KD"
_ONE_VIEW = "--dccd-views 1 --dccd-view-aug same"
_DCCD = "--kd-distill-type dccd"
# DCCD's own take views, weights and temperatures from the recipe
METHODS = {
    "none": f"--kd-distill-type none {_ONE_VIEW}",
    "two-view none": "--kd-distill-type none --dccd-views 2",
    "KD": f"--kd-distill-type logit {_ONE_VIEW}",
    CONTROL: "--kd-distill-type logit --dccd-views 2",
    "timm feature": "--kd-distill-type feature --dccd-views 2",
    "KD + contrast": f"{_DCCD} --dccd-difference-weight 0",
    "KD + difference": f"{_DCCD} --dccd-contrast-weight 0",
    "DCCD": _DCCD,
    "contrast only": f"{_DCCD} --dccd-difference-weight 0 --distill-loss-weight 0",
    "difference only": f"{_DCCD} --dccd-contrast-weight 0 --distill-loss-weight 0",
    "DCCD without KD": f"{_DCCD} --distill-loss-weight 0",
}


def read_run(folder: Path) -> dict[str, Any]:
    """A finished run's numbers."""
    with (folder / "summary.csv").open(newline="") as stream:
        epochs = list(csv.DictReader(stream))
    report = json.loads((folder / "report" / "report.json").read_text())
    views = report["views_seen"]
    # epoch by epoch, since a run that was cut went on in another process; validation is not in it
    seconds = sum(views / len(epochs) / float(row["train_views_per_second"]) for row in epochs)
    return {
        "top1": float(epochs[-1]["eval_top1"]),
        "agreement": report["student"].get("agreement"),
        "effective_rank": report["redundancy"]["student"]["effective_rank"],
        "views_seen": views,
        "train_seconds": seconds,
    }


class Runner:
    """Trains one student after the other in ``jobs`` slots that share the cores and the GPUs."""

    def __init__(self, output: Path, recipe: Path, jobs: int) -> None:
        self.output, self.recipe, self.jobs = output, recipe, jobs
        self.threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if gpus == [""]:
            gpus = [str(number) for number in range(torch.cuda.device_count())]
        self.slots: Queue[str] = Queue()
        for job in range(jobs):
            self.slots.put(gpus[job % len(gpus)] if gpus else "")
        self.running: set[subprocess.Popen[str]] = set()
        self.stopping = False

    def words(self, flags: list[str], seed: int) -> list[str]:
        """What train.py is told about the training itself."""
        return ["-c", str(self.recipe), "--dccd-control", "", "--seed", str(seed), *flags]

    def folder(self, method: str, seed: int) -> Path:
        """Where a run lies."""
        return self.output / f"{slug(method)}-{seed}"

    def check(self, method: str, seed: int, flags: list[str]) -> None:
        """Refuse wrong flags, and a folder in which another training lies under the same name.

        Raises:
            UserError: names the method.
        """
        try:
            recipe = load_recipe(self.words(flags, seed))
        except UserError as error:
            raise UserError(f"method {method}: {error}") from None
        if not recipe.val_split:
            raise UserError(f"{self.recipe} has no val_split: nothing to compare")
        folder = self.folder(method, seed)
        told = beside(folder, ".json")
        if told.is_file() and json.loads(told.read_text()) != self.identity(flags, seed):
            raise UserError(f"{folder} was trained by another recipe or other flags: set --output")

    def identity(self, flags: list[str], seed: int) -> dict[str, Any]:
        """What makes a training what it is; kept beside its folder."""
        return {"recipe": self.recipe.read_text(), "flags": flags, "seed": seed}

    def run(self, method: str, seed: int, flags: list[str]) -> str:
        """Train, unless it is done; the error's last line, or nothing."""
        folder = self.folder(method, seed)
        if self.stopping or (folder / "report" / "report.json").is_file():
            return ""
        self.output.mkdir(parents=True, exist_ok=True)
        beside(folder, ".json").write_text(json.dumps(self.identity(flags, seed)))
        place = ["--output", str(self.output), "--experiment", folder.name, "--resume", "auto"]
        gpu = self.slots.get()
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(ROOT)}
        env |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        log = beside(folder, ".log")
        try:
            with log.open("a") as stream:
                child = subprocess.Popen(
                    [sys.executable, str(ROOT / "train.py"), *self.words(flags, seed), *place],
                    stdout=stream, stderr=subprocess.STDOUT, text=True, env=env,
                )  # fmt: skip
                self.running.add(child)
                if self.stopping:  # the signal came between the two
                    child.terminate()
                child.wait()
        finally:
            self.slots.put(gpu)
        self.running.discard(child)
        if child.returncode == 0 or self.stopping:
            return ""
        return f"{(log.read_text().splitlines() or ['no word'])[-1]} (code {child.returncode}, {log})"

    def stop(self, *_: Any) -> None:
        """Let the running trainings save and leave; start no more."""
        self.stopping = True
        for child in list(self.running):
            child.terminate()


def beside(folder: Path, ending: str) -> Path:
    """The file of that name and ending beside a run's folder; the name may hold dots: with_suffix would cut there."""
    return folder.parent / f"{folder.name}{ending}"


def slug(method: str) -> str:
    """A method's name as part of a folder's."""
    return re.sub(r"[^\w.]+", "-", method).strip("-")


def choose_methods(names: list[str] | None, own: list[str]) -> dict[str, list[str]]:
    """Names and flags of the methods asked for; without any, all that stand in this file.

    Raises:
        UserError: for unknown, nameless and equal names.
    """
    if names is None:
        names = [] if own else list(METHODS)
    if unknown := [name for name in names if name not in METHODS]:
        raise UserError(f"no method {unknown[0]!r}: choose from {', '.join(METHODS)}, or give --method 'NAME=FLAGS'")
    chosen = [(name, METHODS[name]) for name in names]
    for word in own:
        name, equals, flags = word.partition("=")
        if not equals or not slug(name):
            raise UserError(f"--method {word!r} must be 'NAME=FLAGS'")
        chosen.append((name.strip(), flags))
    slugs = [slug(name) for name, _ in chosen]
    if twice := [name for name, _ in chosen if slugs.count(slug(name)) > 1]:
        raise UserError(f"two methods go by the name of {twice[0]!r}: rename one")
    try:
        return {name: shlex.split(flags) for name, flags in chosen}
    except ValueError as error:
        raise UserError(f"--method: {error}") from None


def compare(options: argparse.Namespace) -> int:
    """Run what is missing, tell each run in a line, write table and figure; the number of failed runs."""
    extra = shlex.split(options.flags)
    methods = {name: extra + flags for name, flags in choose_methods(options.methods, options.method).items()}
    if options.jobs < 1 or len(set(options.seeds)) != len(options.seeds):
        raise UserError("--jobs must be 1 or more, and --seeds all different")
    if not options.config.is_file():
        raise UserError(f"recipe {options.config} does not exist")
    runner = Runner(options.output.resolve(), options.config.resolve(), options.jobs)
    pairs = [(method, seed) for seed in options.seeds for method in methods]
    for method, seed in pairs:
        runner.check(method, seed, methods[method])
    runs: dict[str, dict[int, dict[str, Any]]] = {method: {} for method in methods}
    failed = 0
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, runner.stop)
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = {pool.submit(runner.run, m, s, methods[m]): (m, s) for m, s in pairs}
        for done in as_completed(waiting):
            method, seed = waiting[done]
            if error := done.result():
                failed += 1
                print(f"{method}, seed {seed}: FAILED: {error}", flush=True)
            elif (runner.folder(method, seed) / "report" / "report.json").is_file():
                runs[method][seed] = numbers = read_run(runner.folder(method, seed))
                told = "  ".join(f"{k} {v:.6g}" for k, v in numbers.items() if v is not None)
                print(f"{method}, seed {seed}: {told}", flush=True)
    if runner.stopping:
        raise UserError("stopped; the same command goes on")
    rows = summarise(runs, options.control)
    if not rows:
        return failed
    table = markdown(rows, options.control)
    command = shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]])
    notes = (
        f"`{command}`\n\nTop-1 of the last epoch, mean and standard deviation over seeds; differences pair runs of"
        " equal seed, with the 95 % interval\nof Student's t. Agreement and effective rank are those of the run's best"
        " epoch (`best/`). Views seen are all augmented images\nof a training; its seconds hold no validation, beside"
        f" {runner.jobs - 1} other runs on the same machine.\n"
    )
    (runner.output / "comparison.md").write_text(f"{notes}\n{table}")
    write_csv(runner.output / "comparison.csv", rows)
    each = [{"method": m, "seed": s, **runs[m][s]} for m in runs for s in sorted(runs[m])]
    write_csv(runner.output / "runs.csv", each)
    draw(runner.output / "comparison.png", runs, rows, options.control)
    print(f"\n{table}\n{runner.output} holds comparison.md, comparison.csv, runs.csv and comparison.png")
    return failed


def main() -> None:
    """Flags in; a mistake is one line and code 2, a failed run code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=ROOT / "recipes" / "quickstart.yaml", help="the recipe")
    parser.add_argument("--output", type=Path, default=Path("output/compare"), help="folder of all runs and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"some of: {', '.join(METHODS)} (default: all)")
    parser.add_argument(
        "--method", action="append", default=[], metavar="NAME=FLAGS", help="one of your own; repeatable"
    )
    parser.add_argument("--control", default=CONTROL, help=f"the method to pair with (default: {CONTROL})")
    parser.add_argument("--flags", default="", help="flags for every run, one string")
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, torch.cuda.device_count()),
        help="runs at a time (default: one a GPU, else 1)",
    )
    try:
        failed = compare(parser.parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
