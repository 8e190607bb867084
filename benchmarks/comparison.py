"""The statistics of a comparison, paired over seeds, and their table and figure."""

import csv
import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from dccd_timm.report.figures import BLACK, BLUE, ORANGE, pyplot


@dataclass(frozen=True)
class RunResult:
    """A finished run's numbers: ``top1`` and ``agreement`` in percent, of the last and of the best epoch.

    ``sensitivity`` is the correlation of its changes of answer with the teacher's, mean over minor changes of an image.
    ``views_seen`` are all augmented images of the training, ``train_seconds`` are without validation.
    """

    top1: float
    agreement: float | None = None
    effective_rank: float | None = None
    views_seen: int | None = None
    train_seconds: float | None = None
    sensitivity: float | None = None


@dataclass(frozen=True)
class Row:
    """A method over its seeds: means, and the difference to the control over the seeds that both have.

    ``top1_half_interval`` and ``half_interval`` are half the width of a 95 % interval. ``time_ratio`` is the geometric
    mean of the training's seconds by the control's, over the same pairs; ``sensitivity_difference`` and its half
    interval are paired likewise.
    """

    method: str
    seeds: int
    top1: float
    top1_stdev: float | None
    top1_half_interval: float | None
    pairs: int
    difference: float | None
    half_interval: float | None
    agreement: float | None
    effective_rank: float | None
    views_seen: float | None
    train_seconds: float | None
    time_ratio: float | None
    sensitivity: float | None
    sensitivity_difference: float | None
    sensitivity_half_interval: float | None


Interval = tuple[float, float | None]  # a mean, and half the width of its 95 % interval where there is one
Runs = dict[str, dict[int, RunResult]]  # method -> seed -> result


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean, and half the width of its 95 % interval by Student's t; None for a single value."""
    if len(values) < 2:
        return values[0], None
    quantile = float(stats.t.ppf(0.975, len(values) - 1))
    return statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def mean_ratio(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    """Geometric mean of the ratios of pairs, and the factor from it to either end of its 95 % interval."""
    if not pairs:
        return None
    mean, half = mean_interval([math.log(one / other) for one, other in pairs])
    return math.exp(mean), None if half is None else math.exp(half)


def paired_runs(runs: Runs, method: str, control: str) -> list[tuple[RunResult, RunResult]]:
    """The results of a method and of the control, for each seed that both have; none for the control itself."""
    others = runs.get(control, {})
    paired = [seed for seed in sorted(runs[method]) if method != control and seed in others]
    return [(runs[method][seed], others[seed]) for seed in paired]


def differences(runs: Runs, method: str, control: str) -> list[float]:
    """Top-1 minus that of the control, for each pair."""
    return [mine.top1 - other.top1 for mine, other in paired_runs(runs, method, control)]


def summarise(runs: Runs, control: str) -> list[Row]:
    """A row for each method that has finished runs."""
    return [_row(runs, method, control) for method in runs if runs[method]]


def _row(runs: Runs, method: str, control: str) -> Row:
    results = [runs[method][seed] for seed in sorted(runs[method])]
    top1 = [result.top1 for result in results]
    gains = differences(runs, method, control)
    difference, half_interval = mean_interval(gains) if gains else (None, None)
    seconds = [(mine.train_seconds, other.train_seconds) for mine, other in paired_runs(runs, method, control)]
    time_ratio = mean_ratio([(mine, other) for mine, other in seconds if mine and other])
    follows = [(mine.sensitivity, other.sensitivity) for mine, other in paired_runs(runs, method, control)]
    changes = [mine - other for mine, other in follows if mine is not None and other is not None]
    sensitivity_difference, sensitivity_half_interval = mean_interval(changes) if changes else (None, None)
    return Row(
        method=method,
        seeds=len(top1),
        top1=statistics.mean(top1),
        top1_stdev=statistics.stdev(top1) if len(top1) > 1 else None,
        top1_half_interval=mean_interval(top1)[1],
        pairs=len(gains),
        difference=difference,
        half_interval=half_interval,
        agreement=_mean([result.agreement for result in results]),
        effective_rank=_mean([result.effective_rank for result in results]),
        views_seen=_mean([result.views_seen for result in results]),
        train_seconds=_mean([result.train_seconds for result in results]),
        time_ratio=time_ratio[0] if time_ratio else None,
        sensitivity=_mean([result.sensitivity for result in results]),
        sensitivity_difference=sensitivity_difference,
        sensitivity_half_interval=sensitivity_half_interval,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def markdown(rows: list[Row], control: str) -> str:
    """The table."""
    head = ["method", "seeds", "last-epoch top-1 (%)", f"minus {control}, paired, 95 % interval"]
    head += ["agrees with teacher (%)", "effective rank", "views seen", "training (s)", f"time / {control}'s"]
    head += ["sensitivity", f"minus {control}'s"]
    lines = [table_row(head), "|" + "---|" * len(head)]
    for row in rows:
        spread = "" if row.top1_stdev is None else f" ± {row.top1_stdev:.2f}"
        difference = signed(None if row.difference is None else (row.difference, row.half_interval))
        means = (
            (row.agreement, ".2f"),
            (row.effective_rank, ".2f"),
            (row.views_seen, ",.0f"),
            (row.train_seconds, ".0f"),
            (row.time_ratio, ".2f"),
            (row.sensitivity, ".3f"),
        )
        cells = [row.method, str(row.seeds), f"{row.top1:.2f}{spread}", difference]
        cells += ["" if value is None else f"{value:{digits}}" for value, digits in means]
        change = row.sensitivity_difference
        cells.append(signed(None if change is None else (change, row.sensitivity_half_interval), digits=3))
        lines.append(table_row(cells))
    return "\n".join(lines) + "\n"


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def signed(difference: Interval | None, digits: int = 2) -> str:
    """A difference with the ends of its interval."""
    if difference is None:
        return ""
    mean, half = difference
    ends = "" if half is None else f" ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"
    return f"{mean:+.{digits}f}{ends}"


def draw(path: Path, runs: Runs, rows: list[Row], control: str) -> None:
    """Left: each seed, the mean and its interval. Right: paired differences to the control, likewise."""
    if (plt := pyplot()) is None:
        return
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.6 + 0.45 * len(rows)), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    for place, row in enumerate(rows):
        top1 = [result.top1 for result in runs[row.method].values()]
        panels = (
            (left, top1, row.top1, row.top1_half_interval),
            (right, differences(runs, row.method, control), row.difference, row.half_interval),
        )
        for axis, points, mean, half in panels:
            if points:
                axis.scatter(points, [place - 0.14] * len(points), color=ORANGE, s=22, zorder=2)
                axis.errorbar(mean, place + 0.1, xerr=half, color=BLUE, marker="D", markersize=6, capsize=4, zorder=3)
    left.scatter([], [], color=ORANGE, s=22, label="one seed")
    left.errorbar([], [], xerr=[], color=BLUE, marker="D", markersize=6, capsize=4, label="mean, 95 % interval")
    right.axvline(0, color=BLACK, linestyle="--", linewidth=1)
    left.set_yticks(range(len(rows)), [row.method for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.locator_params(axis="x", nbins=7), right.locator_params(axis="x", nbins=5)
    left.set_xlabel("last-epoch top-1 (%)")
    right.set_xlabel(f"minus {control}, same seed (points)")
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """A row for each method."""
    write_rows(path, [dataclasses.asdict(row) for row in rows])


def write_runs(path: Path, runs: Runs) -> None:
    """A row for each run."""
    write_rows(path, run_rows(runs))


def run_rows(runs: Runs) -> list[dict[str, object]]:
    """What a CSV file says of each run."""
    return [{"method": m, "seed": s, **dataclasses.asdict(runs[m][s])} for m in runs for s in sorted(runs[m])]


def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """A CSV file; the columns are those of the first row."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
