"""Methods x seeds on one recipe: last-epoch accuracy, mean and spread, paired with a control; Markdown, CSV, a figure.

    python benchmarks/compare.py recipes/quickstart.yaml --methods none-2 kd-2 dccd --seeds 42 43 44 --jobs 2
    python benchmarks/compare.py RECIPE --method 'strong=--dccd-contrast-weight 1' --flags '--epochs 20'

Runs are kept: a comparison that was stopped goes on, each run exactly where it was. The control is two-view KD
(kd-2) unless --control says otherwise; differences to it are paired by seed, with their 95 % t interval.
"""

import argparse
import concurrent.futures
import csv
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_NO_KD = ["--distill-loss-weight", "0"]
_CONTRAST, _DIFFERENCE = ["--dccd-difference-weight", "0"], ["--dccd-contrast-weight", "0"]
_DCCD = ["--kd-distill-type", "dccd"]
METHODS = {
    "none": ["--kd-distill-type", "none", "--dccd-views", "1"],
    "none-2": ["--kd-distill-type", "none", "--dccd-views", "2"],
    "kd": ["--kd-distill-type", "logit", "--dccd-views", "1"],
    "kd-2": ["--kd-distill-type", "logit", "--dccd-views", "2"],
    "feature": ["--kd-distill-type", "feature", "--dccd-views", "1"],
    "feature-2": ["--kd-distill-type", "feature", "--dccd-views", "2"],
    "contrast": [*_DCCD, *_CONTRAST],
    "difference": [*_DCCD, *_DIFFERENCE],
    "dccd": _DCCD,
    "contrast-no-kd": [*_DCCD, *_CONTRAST, *_NO_KD],
    "difference-no-kd": [*_DCCD, *_DIFFERENCE, *_NO_KD],
    "dccd-no-kd": [*_DCCD, *_NO_KD],
}
COLUMNS = ("method", "seed", "top1", "agreement", "effective_rank", "views", "seconds")


def run(recipe: str, out: Path, method: str, seed: int, flags: list[str], threads: int) -> dict[str, Any]:
    """Train one student, unless its report is there already; its last epoch in numbers."""
    folder = out / f"{method}-{seed}"
    if not (folder / "report" / "report.json").is_file():
        words = ["-c", recipe, "--dccd-control", "", "--seed", str(seed), *flags]
        command = [sys.executable, str(ROOT / "train.py"), *words, "--output", str(out), "--experiment", folder.name]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, "--resume", "auto"], env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stderr[-2000:]}")
    with (folder / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    report = json.loads((folder / "report" / "report.json").read_text())
    return dict(
        method=method, seed=seed, top1=float(rows[-1]["eval_top1"]), agreement=report["student"].get("agreement"),
        effective_rank=report["redundancy"]["student"]["effective_rank"], views=report["views_seen"],
        seconds=report["seconds"],
    )  # fmt: skip


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile above 0 of Student's t distribution: where the integral of its density has come to ``probability``."""
    scale = math.gamma((degrees + 1) / 2) / (math.gamma(degrees / 2) * math.sqrt(degrees * math.pi))
    # x = tan(u) brings the long tails of few degrees into a finite range
    u = np.linspace(0, math.pi / 2, 400_001)[:-1]
    x = np.tan(u)
    density = scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2) * (1 + x**2)
    area = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(u))])
    return float(np.interp(probability - 0.5, area, x))


def paired(values: dict[int, float], control: dict[int, float]) -> tuple[float, float | None]:
    """Mean difference over common seeds, and half of its 95 % interval (None for a single pair)."""
    gains = [values[seed] - control[seed] for seed in sorted(values) if seed in control]
    if len(gains) < 2:
        return (gains[0] if gains else math.nan), None
    half = t_quantile(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    return statistics.mean(gains), half


def of(rows: list[dict[str, Any]], method: str, key: str = "top1") -> dict[int, float]:
    """One column of a method, by seed."""
    return {row["seed"]: row[key] for row in rows if row["method"] == method}


def table(rows: list[dict[str, Any]], methods: list[str], control: str) -> str:
    """Markdown: a row a method."""
    head = ["method", "top-1 (%)", "seed by seed", f"minus {control}, paired (95 %)", "agreement (%)",
            "effective rank", "views seen", "seconds"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for method in methods:
        top1 = of(rows, method)
        values = [top1[seed] for seed in sorted(top1)]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        gain, half = paired(top1, of(rows, control))
        shown = "" if method == control or math.isnan(gain) else f"{gain:+.2f}" + (f" ± {half:.2f}" if half else "")
        agreement = [a for a in of(rows, method, "agreement").values() if a is not None]
        means = {k: statistics.mean(of(rows, method, k).values()) for k in ("effective_rank", "views", "seconds")}
        cells = [
            method, f"{statistics.mean(values):.2f}{spread}", ", ".join(f"{v:.2f}" for v in values), shown,
            f"{statistics.mean(agreement):.2f}" if agreement else "", f"{means['effective_rank']:.2f}",
            f"{means['views']:.0f}", f"{means['seconds']:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: Path, rows: list[dict[str, Any]], methods: list[str], control: str) -> None:
    """Every run a point, the mean a bar; beside it the paired difference with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.42 * len(methods)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, method in enumerate(methods):
        values = list(of(rows, method).values())
        left.plot(values, [place] * len(values), "o", color="#0072B2", alpha=0.7, markersize=5)
        left.plot([statistics.mean(values)] * 2, [place - 0.3, place + 0.3], color="black", linewidth=2)
        gain, half = paired(of(rows, method), of(rows, control))
        if method != control and not math.isnan(gain):
            right.errorbar(gain, place, xerr=half, fmt="s", color="#D55E00", capsize=4)
    left.set_yticks(range(len(methods)), methods)
    left.invert_yaxis()
    left.set_xlabel("last-epoch top-1 (%); bar: mean")
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel(f"minus {control}, paired (points, 95 % interval)")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing; write table, CSV and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="recipes/quickstart.yaml")
    parser.add_argument("--out", type=Path, default=Path("output/compare"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--methods", nargs="*", default=["none-2", "kd-2", "dccd"], choices=METHODS)
    parser.add_argument("--method", action="append", default=[], metavar="NAME=FLAGS", help="one more; may be repeated")
    parser.add_argument("--control", default="kd-2", help="method that the others are compared with")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; each gets its share of the cores")
    parser.add_argument("--flags", default="", help="flags for all runs, one string")
    args = parser.parse_args(argv)
    methods = {name: METHODS[name] for name in args.methods}
    for word in args.method:
        name, _, flags = word.partition("=")
        methods[name] = [*_DCCD, *shlex.split(flags)]
    out, threads = args.out.resolve(), max(1, (os.cpu_count() or 1) // args.jobs)
    jobs = [(method, seed) for seed in args.seeds for method in methods]
    rows: list[dict[str, Any]] = []
    failed = []
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        waiting = {
            pool.submit(run, args.recipe, out, m, s, [*shlex.split(args.flags), *methods[m]], threads): (m, s)
            for m, s in jobs
        }
        for number, done in enumerate(concurrent.futures.as_completed(waiting), start=1):
            method, seed = waiting[done]
            try:
                rows.append(done.result())
            except RuntimeError as error:
                failed.append(f"{method} seed {seed}: {error}")
                continue
            print(f"{number} of {len(jobs)}: {method} seed {seed}: top-1 {rows[-1]['top1']:.2f} %", flush=True)
    if rows:
        names = [name for name in methods if of(rows, name)]
        rows.sort(key=lambda row: (names.index(row["method"]), row["seed"]))
        with (out / "compare.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader(), writer.writerows(rows)
        text = table(rows, names, args.control)
        (out / "compare.md").write_text(text + "\n")
        draw(out / "compare.png", rows, names, args.control)
        print(f"{text}\n\n{out}/compare.md, .csv and .png have it")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
