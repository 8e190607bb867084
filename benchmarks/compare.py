"""Methods x seeds on one recipe: last-epoch top-1, mean and spread, paired with a control at equal views and steps.

    python benchmarks/compare.py -c recipes/quickstart.yaml --seeds 42 43 44 --jobs 2 --output output/compare
    python benchmarks/compare.py -c R.yaml --methods "two-view KD" DCCD --method 'hard=--dccd-contrast-targets hard'
    python benchmarks/compare.py -c R.yaml --methods "two-view KD" DCCD --epochs-list 2 4 8 16 32

A method of your own is a name and its flags, which are added to `train.py -c RECIPE`. Finished runs are kept and
interrupted ones resume, so the same command continues a comparison that was stopped. It writes comparison.md,
comparison.csv (a row for each method), runs.csv (a row for each run) and comparison.png into the output folder. With
--epochs-list each number of epochs is a training of its own with its own schedule; then it writes lengths.csv,
lengths.png and reach.csv (the epochs and seconds to an accuracy) in place of comparison.csv and comparison.png. It
needs `pip install 'dccd-timm[benchmarks]'`.
"""

import argparse
import dataclasses
import shlex
import signal
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.comparison import (
    RunResult,
    Runs,
    draw,
    markdown,
    run_rows,
    summarise,
    write_csv,
    write_rows,
    write_runs,
)
from benchmarks.lengths import (
    Lengths,
    default_accuracies,
    draw_lengths,
    markdown_lengths,
    summarise_lengths,
    summarise_reach,
    write_lengths,
    write_reach,
)
from benchmarks.runner import ROOT, Job, Runner, read_run, slug
from dccd_timm.errors import UserError
from dccd_timm.recipe.methods import LOGIT_LOSSES, METHODS

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
    _check_lengths(options, methods)
    if not options.config.is_file():
        raise UserError(f"recipe {options.config} does not exist")
    runner = Runner(options.output.resolve(), options.config.resolve(), options.jobs)
    jobs = [
        Job(method, tuple(flags), seed, epochs)
        for seed in options.seeds
        for epochs in sorted(options.epochs_list or []) or [None]
        for method, flags in methods.items()
    ]
    for job in jobs:
        runner.check(job)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, runner.stop)
    results, failed = run_all(runner, jobs)
    if runner.stopping:
        raise UserError("stopped; the same command continues")
    if results:
        lengths: dict[int | None, Runs] = {job.epochs: {} for job in jobs}
        for job in (job for job in jobs if job in results):  # the order of the methods, not of their ends
            lengths[job.epochs].setdefault(job.method, {})[job.seed] = results[job]
        if options.epochs_list:
            write_lengths_results(runner, lengths, options)
        else:
            write_results(runner, lengths[None], options.control)
    return failed


def _check_lengths(options: argparse.Namespace, methods: dict[str, list[str]]) -> None:
    """Refuse lengths that are none, and flags that set another one.

    Raises:
        UserError: names them.
    """
    lengths = options.epochs_list
    if lengths is None:
        if options.reach:
            raise UserError("--reach needs --epochs-list: it is read between trainings of several lengths")
        return
    if len(lengths) < 2 or len(set(lengths)) != len(lengths) or min(lengths) < 1:
        raise UserError("--epochs-list must be two numbers of epochs or more, all different")
    for method, flags in methods.items():
        if any(flag.split("=")[0] == "--epochs" for flag in flags):
            raise UserError(f"method {method} sets --epochs, which --epochs-list does: remove one")
    if options.control not in methods:
        raise UserError(f"--epochs-list compares with the control: add {options.control!r} to --methods")


def run_all(runner: Runner, jobs: Sequence[Job]) -> tuple[dict[Job, RunResult], int]:
    """Run all jobs; returns the results and the number of failed runs."""
    results: dict[Job, RunResult] = {}
    failed = 0
    with ThreadPoolExecutor(runner.jobs) as pool:
        waiting = {pool.submit(runner.run, job): job for job in jobs}
        for done in as_completed(waiting):
            job = waiting[done]
            if error := done.result():
                failed += 1
                print(f"{job}: FAILED: {error}", flush=True)
            elif runner.is_finished(job):
                result = results[job] = read_run(runner.folder(job))
                numbers = (f"{k} {v:.6g}" for k, v in dataclasses.asdict(result).items() if v is not None)
                print(f"{job}: {'  '.join(numbers)}", flush=True)
    return results, failed


def write_results(runner: Runner, runs: Runs, control: str) -> None:
    """Write the tables and the figure of one length into the output folder, and print the table."""
    rows = summarise(runs, control)
    _write_table(runner, markdown(rows, control), "")
    write_csv(runner.output / "comparison.csv", rows)
    write_runs(runner.output / "runs.csv", runs)
    draw(runner.output / "comparison.png", runs, rows, control)
    print(f"{runner.output} holds comparison.md, comparison.csv, runs.csv and comparison.png")


def write_lengths_results(runner: Runner, lengths: Lengths, options: argparse.Namespace) -> None:
    """Write tables and figure of several lengths into the output folder, and print the tables."""
    control = options.control
    rows = summarise_lengths(lengths, control)
    reached = summarise_reach(lengths, control, options.reach or default_accuracies(lengths, control))
    note = (
        " Each length is a training with its own schedule. At equal seconds: the method's top-1 in as many seconds as"
        f" {control} took, interpolated between its lengths over the logarithm of seconds. Epochs and seconds to an"
        " accuracy are interpolated likewise: geometric means, paired ratios with the 95 % interval; an accuracy is"
        f" {'given' if options.reach else f'half-way between those of {control} at successive lengths'}."
    )
    _write_table(runner, markdown_lengths(rows, reached, control), note)
    write_lengths(runner.output / "lengths.csv", rows)
    if reached:
        write_reach(runner.output / "reach.csv", reached)
    runs = [{"epochs": epochs, **row} for epochs in sorted(lengths) for row in run_rows(lengths[epochs])]
    write_rows(runner.output / "runs.csv", runs)
    draw_lengths(runner.output / "lengths.png", rows)
    needs = ", reach.csv" if reached else ""
    print(f"{runner.output} holds comparison.md, lengths.csv{needs}, runs.csv and lengths.png")


def _write_table(runner: Runner, table: str, note: str) -> None:
    """Write comparison.md, and print its table."""
    command = shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]])
    text = (
        "Top-1 of the last epoch, mean and standard deviation over seeds; differences pair runs of equal seed, with"
        " the 95 % interval of Student's t. Agreement, effective rank and sensitivity are those of the run's best"
        " epoch (`best/`); sensitivity is the correlation of its changes of logits with the teacher's, mean over the"
        " minor changes of the report. Views seen are all augmented images of a training; its seconds are without"
        f" validation, beside {runner.jobs - 1} other runs on the same machine, and their ratio is a geometric mean."
    )
    (runner.output / "comparison.md").write_text(f"`{command}`\n\n{textwrap.fill(text + note, 120)}\n\n{table}")
    print(f"\n{table}")


def main() -> None:
    """Run the program; it exits with 2 after a mistake, in one line, and with 1 after a failed run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=ROOT / "recipes" / "quickstart.yaml", help="the recipe")
    parser.add_argument("--output", type=Path, default=Path("output/compare"), help="folder of all runs and the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--epochs-list", type=int, nargs="+", metavar="N", help="compare at each of these lengths")
    parser.add_argument(
        "--reach",
        type=float,
        nargs="+",
        metavar="TOP1",
        help="with --epochs-list, the accuracies that are to be reached (default: half-way between the control's)",
    )
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
