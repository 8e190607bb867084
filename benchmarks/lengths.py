"""The same methods at several lengths of training: equal steps, equal seconds, and how soon an accuracy is reached.

Each length is a training of its own with its own schedule. Between two of them accuracy is interpolated linearly over
the logarithm of epochs or of seconds; beyond the shortest and the longest nothing is assumed.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.comparison import (
    Interval,
    Row,
    Runs,
    mean_interval,
    mean_ratio,
    signed,
    summarise,
    table_row,
    write_rows,
)
from dccd_timm.report.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, pyplot

Lengths = dict[int, Runs]  # epochs -> method -> seed -> result


@dataclass(frozen=True)
class Point:
    """One training of a method and a seed: its length and its last epoch's ``top1`` in percent."""

    epochs: float
    seconds: float
    top1: float


@dataclass(frozen=True)
class LengthRow:
    """A method at one length: ``row`` at equal steps, and the difference to the control at the control's seconds."""

    epochs: int
    row: Row
    equal_seconds_pairs: int
    equal_seconds: Interval | None


@dataclass(frozen=True)
class ReachRow:
    """How soon a method reaches an accuracy: geometric means over its seeds, ratios to the control's, paired.

    ``at_start`` seeds have it at the shortest length already and ``never`` seeds not at the longest; then the means
    are None, since some of the values are not known, and so are the ratios where the control has such seeds.
    """

    top1: float
    method: str
    seeds: int
    at_start: int
    never: int
    epochs: float | None
    seconds: float | None
    pairs: int
    epochs_ratio: Interval | None
    seconds_ratio: Interval | None


def curve(lengths: Lengths, method: str, seed: int) -> list[Point]:
    """The trainings of a method and a seed by length; those without a measured time are left out."""
    found = [(epochs, runs[method][seed]) for epochs, runs in sorted(lengths.items()) if seed in runs.get(method, {})]
    return [Point(epochs, run.train_seconds, run.top1) for epochs, run in found if run.train_seconds]


def top1_after(points: Sequence[Point], seconds: float) -> float | None:
    """Top-1 of a training that takes so many ``seconds``; None outside of the measured ones."""
    ordered = sorted(points, key=lambda point: point.seconds)
    for before, after in itertools.pairwise(ordered):
        if before.seconds <= seconds <= after.seconds:
            share = math.log(seconds / before.seconds) / math.log(after.seconds / before.seconds)
            return before.top1 + share * (after.top1 - before.top1)
    return None


def reach(points: Sequence[Point], top1: float) -> Point | None:
    """The shortest training that reaches ``top1``, between two lengths; None if the longest one measured does not.

    Where the shortest has it already, that one: the true need is not more.
    """
    if points and points[0].top1 >= top1:
        return points[0]
    for before, after in itertools.pairwise(points):
        if before.top1 < top1 <= after.top1:
            share = (top1 - before.top1) / (after.top1 - before.top1)
            epochs = before.epochs * (after.epochs / before.epochs) ** share
            return Point(epochs, before.seconds * (after.seconds / before.seconds) ** share, top1)
    return None


def summarise_lengths(lengths: Lengths, control: str) -> list[LengthRow]:
    """A row for each length and method."""
    rows = []
    for epochs in sorted(lengths):
        for row in summarise(lengths[epochs], control):
            gains = _gains_at_equal_seconds(lengths, epochs, row.method, control)
            rows.append(LengthRow(epochs, row, len(gains), mean_interval(gains) if gains else None))
    return rows


def _gains_at_equal_seconds(lengths: Lengths, epochs: int, method: str, control: str) -> list[float]:
    """Top-1 of ``method``, interpolated at the control's seconds for ``epochs``, minus the control's, by seed; none
    unless every pair of that length lies inside the measured seconds: the pairs left would be a choice."""
    others, own = lengths[epochs].get(control, {}), lengths[epochs].get(method, {})
    gains = []
    for seed in sorted(own if method != control else {}):
        if seed not in others:
            continue
        seconds = others[seed].train_seconds
        top1 = top1_after(curve(lengths, method, seed), seconds) if seconds else None
        if top1 is None:
            return []
        gains.append(top1 - others[seed].top1)
    return gains


def default_accuracies(lengths: Lengths, control: str) -> list[float]:
    """Accuracies half-way between the control's means at successive lengths, where it gains from the longer one."""
    means = [
        statistics.mean(run.top1 for run in runs[control].values())
        for _, runs in sorted(lengths.items())
        if runs.get(control)
    ]
    return [round((low + high) / 2, 2) for low, high in itertools.pairwise(means) if low < high]


def summarise_reach(lengths: Lengths, control: str, accuracies: Sequence[float]) -> list[ReachRow]:
    """A row for each accuracy and method."""
    methods = list(dict.fromkeys(method for runs in lengths.values() for method in runs))
    return [_reach_row(lengths, method, control, top1) for top1 in accuracies for method in methods]


def _reach_row(lengths: Lengths, method: str, control: str, top1: float) -> ReachRow:
    curves, control_curves = _curves(lengths, method), _curves(lengths, control)
    found, others = ({s: reach(points, top1) for s, points in c.items()} for c in (curves, control_curves))
    start, never = _unknown(curves, found)
    points = [] if start | never else list(found.values())
    paired = [seed for seed in found if method != control and seed in others]
    unknown = set.union(start, never, *_unknown(control_curves, others))
    pairs = [] if unknown.intersection(paired) else [(found[seed], others[seed]) for seed in paired]
    return ReachRow(
        top1, method, len(found), len(start), len(never),
        epochs=statistics.geometric_mean(point.epochs for point in points) if points else None,
        seconds=statistics.geometric_mean(point.seconds for point in points) if points else None,
        pairs=len(pairs),
        epochs_ratio=mean_ratio([(mine.epochs, theirs.epochs) for mine, theirs in pairs]),
        seconds_ratio=mean_ratio([(mine.seconds, theirs.seconds) for mine, theirs in pairs]),
    )  # fmt: skip


def _curves(lengths: Lengths, method: str) -> dict[int, list[Point]]:
    """The curves of a method by seed; a seed that lacks a length is left out, or its curve would skip it."""
    seeds = [set(runs.get(method, {})) for runs in lengths.values()]
    curves = {seed: curve(lengths, method, seed) for seed in sorted(set.intersection(*seeds))}
    return {seed: points for seed, points in curves.items() if len(points) == len(lengths)}


def _unknown(curves: dict[int, list[Point]], found: dict[int, Point | None]) -> tuple[set[int], set[int]]:
    """The seeds that have an accuracy at the shortest length already, and those without it at the longest."""
    start = {seed for seed, point in found.items() if point is not None and point is curves[seed][0]}
    return start, {seed for seed, point in found.items() if point is None}


def markdown_lengths(rows: Sequence[LengthRow], reached: Sequence[ReachRow], control: str) -> str:
    """Both tables."""
    head = ["epochs", "method", "seeds", "last-epoch top-1 (%)", f"minus {control} at equal steps"]
    head += ["at equal seconds", "training (s)", f"time / {control}'s"]
    lines = [table_row(head), "|" + "---|" * len(head)]
    for one in rows:
        row = one.row
        spread = "" if row.top1_stdev is None else f" ± {row.top1_stdev:.2f}"
        steps = "" if row.difference is None else signed((row.difference, row.half_interval))
        seconds = "" if row.train_seconds is None else f"{row.train_seconds:.0f}"
        cells = [str(one.epochs), row.method, str(row.seeds), f"{row.top1:.2f}{spread}", steps]
        cells += [signed(one.equal_seconds), seconds, "" if row.time_ratio is None else f"{row.time_ratio:.2f}"]
        lines.append(table_row(cells))
    if not reached:
        return "\n".join([*lines, "", f"{control} gains nothing from a longer training: no accuracy to reach."]) + "\n"
    head = ["top-1 (%)", "method", "seeds", "epochs to it", "seconds to it", f"epochs / {control}'s", "seconds / its"]
    lines += ["", table_row(head), "|" + "---|" * len(head)]
    shortest = min((row.epochs for row in rows), default=0)
    for need in reached:
        epochs, seconds = (
            (f"{need.epochs:.1f}", f"{need.seconds:.0f}")
            if need.epochs is not None and need.seconds is not None
            else (_why_unknown(need, shortest), "")
        )
        cells = [f"{need.top1:.2f}", need.method, str(need.seeds), epochs, seconds]
        lines.append(table_row([*cells, _ratio(need.epochs_ratio), _ratio(need.seconds_ratio)]))
    return "\n".join(lines) + "\n"


def _why_unknown(need: ReachRow, shortest: int) -> str:
    """Why there is no mean: seeds that had the accuracy too early to say when, and seeds that never had it."""
    if not need.seeds:
        return "not every length has run"
    early = [f"under {shortest} in {need.at_start} of {need.seeds}"] if need.at_start else []
    return ", ".join([*early, *([f"never in {need.never} of {need.seeds}"] if need.never else [])])


def _ratio(ratio: Interval | None) -> str:
    """A geometric mean and the bounds of its interval: the half-width is a factor."""
    if ratio is None:
        return ""
    mean, factor = ratio
    return f"{mean:.2f}" + ("" if factor is None else f" ({mean / factor:.2f} to {mean * factor:.2f})")


def write_lengths(path: Path, rows: Sequence[LengthRow]) -> None:
    """A CSV row for each length and method."""
    flat = []
    for row in rows:
        gain, half = row.equal_seconds or (None, None)
        seconds = {"pairs": row.equal_seconds_pairs, "difference": gain, "half_interval": half}
        named = {f"equal_seconds_{name}": value for name, value in seconds.items()}
        flat.append({"epochs": row.epochs, **dataclasses.asdict(row.row), **named})
    write_rows(path, flat)


def write_reach(path: Path, rows: Sequence[ReachRow]) -> None:
    """A CSV row for each accuracy and method; the interval of a ratio is from ratio / factor to ratio * factor."""
    flat = []
    for row in rows:
        cells = {k: v for k, v in dataclasses.asdict(row).items() if not k.endswith("_ratio")}
        for name, ratio in (("epochs_ratio", row.epochs_ratio), ("seconds_ratio", row.seconds_ratio)):
            cells[name], cells[f"{name}_factor"] = ratio or (None, None)
        flat.append(cells)
    write_rows(path, flat)


def draw_lengths(path: Path, rows: Sequence[LengthRow]) -> None:
    """Mean top-1 and its interval against the length of training, in epochs and in seconds; a line for each method."""
    if (plt := pyplot()) is None:
        return
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
    methods = list(dict.fromkeys(row.row.method for row in rows))
    looks = zip(itertools.cycle((BLACK, BLUE, ORANGE, PURPLE, SKY, VERMILION, GREEN)), itertools.cycle("osD^vX"))
    for method, (colour, marker) in zip(methods, looks, strict=False):
        own = [row for row in rows if row.row.method == method]
        top1, half = [row.row.top1 for row in own], [row.row.top1_half_interval or 0 for row in own]
        places = ([row.epochs for row in own], [row.row.train_seconds for row in own])
        for axis, place in zip(axes, places, strict=True):
            if None not in place:
                axis.errorbar(
                    place, top1, yerr=half, color=colour, marker=marker, markersize=5, capsize=3, label=method
                )
    for axis, what in zip(axes, ("epochs", "seconds"), strict=True):
        axis.set(xscale="log", xlabel=f"length of the training ({what})")
    epochs = sorted({row.epochs for row in rows})
    axes[0].set_xticks(epochs, map(str, epochs), minor=False)
    axes[0].set_xticks([], minor=True)
    ticks = [count * 10**power for power in range(-3, 8) for count in (1, 2, 5)]
    axes[1].xaxis.set_major_locator(plt.FixedLocator(ticks)), axes[1].xaxis.set_major_formatter("{x:g}")
    axes[1].set_xticks([], minor=True)  # matplotlib writes them as formulas
    axes[0].set_ylabel("last-epoch top-1 (%), mean and 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=110)
    plt.close(figure)
