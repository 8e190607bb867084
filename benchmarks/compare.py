"""Methods x seeds on one recipe: last-epoch top-1, mean and spread, paired with a control at equal views and steps.

    python benchmarks/compare.py -c recipes/quickstart.yaml --seeds 42 43 44 --jobs 2 --output output/compare
    python benchmarks/compare.py -c R.yaml --methods "two-view KD" DCCD --method 'hard=--dccd-contrast-targets hard'

A method of your own is a name and its flags, which are added to `train.py -c RECIPE`. Finished runs are kept and
interrupted ones resume, so the same command continues a comparison that was stopped. It writes comparison.md,
comparison.csv (a row for each method), runs.csv (a row for each run) and comparison.png into the output folder. It
needs `pip install 'dccd-timm[benchmarks]'`.
"""

import argparse
import dataclasses
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

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.comparison import (  # noqa: E402
    Row,
    RunResult,
    Runs,
    draw,
    markdown,
    summarise,
    write_csv,
    write_runs,
)
from dccd_timm.errors import UserError  # noqa: E402
from dccd_timm.recipe import load_recipe  # noqa: E402
from dccd_timm.recipe.methods import LOGIT_LOSSES, METHODS  # noqa: E402
from dccd_timm.report.schema import Report  # noqa: E402
from dccd_timm.report.summary import read_summary  # noqa: E402

CONTROL = "two-view KD"
_ONE_VIEW = "--dccd-views 1 --dccd-view-aug same"
_DCCD = "--kd-distill-type dccd"
# What is compared by default. DCCD's own take views, weights and temperatures from the recipe.
VARIANTS = {
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

# Any other method of --kd-distill-type goes by its own name, and a loss between logits in brackets; with two views.
NAMED = (
    {name: f"--kd-distill-type {name} --dccd-views 2" for name in METHODS if name not in VARIANTS}
    | {
        f"KD ({loss})": f"--kd-distill-type logit --kd-loss-type {loss} --dccd-views 2"
        for loss in LOGIT_LOSSES
        if loss != "kl"
    }
    | {f"DCCD ({loss})": f"{_DCCD} --kd-loss-type {loss}" for loss in LOGIT_LOSSES if loss != "kl"}
    | VARIANTS
)
# What --methods all compares: every method of the field with equal views, and DCCD with each loss between logits.
ALL = (
    "two-view none",
    CONTROL,
    *(name for name in NAMED if name.startswith(("KD (", "DCCD ("))),
    "timm feature",
    *(method.name for method in METHODS.values() if method.has_feature_loss),
    "DCCD",
)


def read_run(folder: Path) -> RunResult:
    """A finished run's numbers.

    Raises:
        UserError: for a folder without a report.
    """
    report, epochs = Report.read(folder), read_summary(folder / "summary.csv")
    if report is None:
        raise UserError(f"{folder} holds no finished run: it has no report/report.json")
    # by epoch, because an interrupted run continued in another process; without validation
    seconds = sum(report.views_seen / len(epochs) / float(row["train_views_per_second"]) for row in epochs)
    return RunResult(
        top1=float(epochs[-1]["eval_top1"]),
        agreement=report.student.agreement,
        effective_rank=report.redundancy.student.effective_rank if report.redundancy else None,
        views_seen=report.views_seen,
        train_seconds=seconds,
    )


class Runner:
    """Trains students in ``jobs`` slots that share the cores and the GPUs."""

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

    def arguments(self, flags: list[str], seed: int) -> list[str]:
        """The arguments of train.py that decide which student comes out."""
        return ["-c", str(self.recipe), "--dccd-control", "", "--seed", str(seed), *flags]

    def folder(self, method: str, seed: int) -> Path:
        """The folder of a run."""
        return self.output / f"{slug(method)}-{seed}"

    def is_finished(self, method: str, seed: int) -> bool:
        """Whether a run has come to its end."""
        return Report.read(self.folder(method, seed)) is not None

    def check(self, method: str, seed: int, flags: list[str]) -> None:
        """Refuse wrong flags, and a folder that holds another training of the same name.

        Raises:
            UserError: names the method.
        """
        try:
            recipe = load_recipe(self.arguments(flags, seed))
        except UserError as error:
            raise UserError(f"method {method}: {error}") from None
        if not recipe.val_split:
            raise UserError(f"{self.recipe} has no val_split: nothing to compare")
        folder = self.folder(method, seed)
        identity = beside(folder, ".json")
        if identity.is_file() and json.loads(identity.read_text()) != self.identity(flags, seed):
            raise UserError(f"{folder} was trained by another recipe or other flags: set --output")

    def identity(self, flags: list[str], seed: int) -> dict[str, object]:
        """What decides a training; kept in a file beside its folder."""
        return {"recipe": self.recipe.read_text(), "flags": flags, "seed": seed}

    def run(self, method: str, seed: int, flags: list[str]) -> str:
        """Train, unless it is done; returns the last line of the error, or nothing."""
        folder = self.folder(method, seed)
        if self.stopping or self.is_finished(method, seed):
            return ""
        self.output.mkdir(parents=True, exist_ok=True)
        beside(folder, ".json").write_text(json.dumps(self.identity(flags, seed)))
        output = ["--output", str(self.output), "--experiment", folder.name, "--resume", "auto"]
        gpu = self.slots.get()
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(ROOT)}
        env |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        log = beside(folder, ".log")
        try:
            with log.open("a") as stream:
                child = subprocess.Popen(
                    [sys.executable, str(ROOT / "train.py"), *self.arguments(flags, seed), *output],
                    stdout=stream, stderr=subprocess.STDOUT, text=True, env=env,
                )  # fmt: skip
                self.running.add(child)
                if self.stopping:  # the signal came before the process was in the set
                    child.terminate()
                child.wait()
        finally:
            self.slots.put(gpu)
        self.running.discard(child)
        if child.returncode == 0 or self.stopping:
            return ""
        return f"{(log.read_text().splitlines() or ['it printed nothing'])[-1]} (code {child.returncode}, {log})"

    def stop(self, *_: object) -> None:
        """Let the running trainings save and end; start no more."""
        self.stopping = True
        for child in list(self.running):
            child.terminate()


def beside(folder: Path, ending: str) -> Path:
    """The file beside a run's folder with its name and another ending (not with_suffix: names contain dots)."""
    return folder.parent / f"{folder.name}{ending}"


def slug(method: str) -> str:
    """A method's name as part of a folder's."""
    return re.sub(r"[^\w.]+", "-", method).strip("-")


def choose_methods(names: list[str] | None, own: list[str]) -> dict[str, list[str]]:
    """Names and flags of the chosen methods; without any, all of VARIANTS.

    Raises:
        UserError: for unknown, nameless and equal names.
    """
    if names is None:
        names = [] if own else list(VARIANTS)
    if names == ["all"]:
        names = list(ALL)
    if unknown := [name for name in names if name not in NAMED]:
        raise UserError(f"no method {unknown[0]!r}: choose from {', '.join(NAMED)}, or give --method 'NAME=FLAGS'")
    chosen = [(name, NAMED[name]) for name in names]
    for word in own:
        name, equals, flags = word.partition("=")
        if not equals or not slug(name):
            raise UserError(f"--method {word!r} must be 'NAME=FLAGS'")
        chosen.append((name.strip(), flags))
    slugs = [slug(name) for name, _ in chosen]
    if twice := [name for name, _ in chosen if slugs.count(slug(name)) > 1]:
        raise UserError(f"two methods have the name {twice[0]!r}: rename one")
    try:
        return {name: shlex.split(flags) for name, flags in chosen}
    except ValueError as error:
        raise UserError(f"--method: {error}") from None


def compare(options: argparse.Namespace) -> int:
    """Run what is missing, print a line for each run, write table and figure; returns the number of failed runs.

    Raises:
        UserError: for wrong options or flags, and when a signal stopped it.
    """
    extra = shlex.split(options.flags)
    methods = {name: extra + flags for name, flags in choose_methods(options.methods, options.method).items()}
    if options.jobs < 1 or len(set(options.seeds)) != len(options.seeds):
        raise UserError("--jobs must be 1 or more, and --seeds all different")
    if not options.config.is_file():
        raise UserError(f"recipe {options.config} does not exist")
    runner = Runner(options.output.resolve(), options.config.resolve(), options.jobs)
    for seed in options.seeds:
        for method, flags in methods.items():
            runner.check(method, seed, flags)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, runner.stop)
    runs, failed = run_all(runner, methods, options.seeds)
    if runner.stopping:
        raise UserError("stopped; the same command continues")
    if rows := summarise(runs, options.control):
        write_results(runner, runs, rows, options.control)
    return failed


def run_all(runner: Runner, methods: dict[str, list[str]], seeds: list[int]) -> tuple[Runs, int]:
    """Run each method with each seed; returns the results and the number of failed runs."""
    runs: Runs = {method: {} for method in methods}
    failed = 0
    with ThreadPoolExecutor(runner.jobs) as pool:
        pairs = [(method, seed) for seed in seeds for method in methods]
        waiting = {pool.submit(runner.run, m, s, methods[m]): (m, s) for m, s in pairs}
        for done in as_completed(waiting):
            method, seed = waiting[done]
            if error := done.result():
                failed += 1
                print(f"{method}, seed {seed}: FAILED: {error}", flush=True)
            elif runner.is_finished(method, seed):
                result = runs[method][seed] = read_run(runner.folder(method, seed))
                numbers = (f"{k} {v:.6g}" for k, v in dataclasses.asdict(result).items() if v is not None)
                print(f"{method}, seed {seed}: {'  '.join(numbers)}", flush=True)
    return runs, failed


def write_results(runner: Runner, runs: Runs, rows: list[Row], control: str) -> None:
    """Write the tables and the figure into the output folder, and print the table."""
    table = markdown(rows, control)
    command = shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]])
    notes = (
        f"`{command}`\n\nTop-1 of the last epoch, mean and standard deviation over seeds; differences pair runs of"
        " equal seed, with the 95 % interval\nof Student's t. Agreement and effective rank are those of the run's best"
        " epoch (`best/`). Views seen are all augmented images\nof a training; its seconds are without validation,"
        f" beside {runner.jobs - 1} other runs on the same machine.\n"
    )
    (runner.output / "comparison.md").write_text(f"{notes}\n{table}")
    write_csv(runner.output / "comparison.csv", rows)
    write_runs(runner.output / "runs.csv", runs)
    draw(runner.output / "comparison.png", runs, rows, control)
    print(f"\n{table}\n{runner.output} holds comparison.md, comparison.csv, runs.csv and comparison.png")


def main() -> None:
    """Run the program; it exits with 2 after a mistake, in one line, and with 1 after a failed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=ROOT / "recipes" / "quickstart.yaml", help="the recipe")
    parser.add_argument("--output", type=Path, default=Path("output/compare"), help="folder of all runs and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help=f"some of: {', '.join(NAMED)} (default: {len(VARIANTS)} of them); all: {len(ALL)}, one of each kind",
    )
    parser.add_argument(
        "--method", action="append", default=[], metavar="NAME=FLAGS", help="a method of your own; repeatable"
    )
    parser.add_argument(
        "--control", default=CONTROL, help=f"the method that the others are compared with (default: {CONTROL})"
    )
    parser.add_argument("--flags", default="", help="flags for every run, one string")
    parser.add_argument(
        "--jobs",
        type=int,
        default=max(1, torch.cuda.device_count()),
        help="runs at a time (default: one for each GPU, else 1)",
    )
    try:
        failed = compare(parser.parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
