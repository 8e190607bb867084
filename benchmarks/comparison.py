"""The statistics of a comparison, paired over seeds, and their table and figure."""

import csv
import math
import statistics
from pathlib import Path
from typing import Any

from dccd_timm.report.pictures import BLUE, GREY, ORANGE, pyplot

NUMBERS = ("top1", "agreement", "effective_rank", "views_seen", "train_seconds")


def t_quantile(probability: float, degrees: int) -> float:
    """Student's t below which ``probability`` (above 0.5) lies (Abramowitz and Stegun 26.7.3, 26.7.4)."""

    def within(angle: float) -> float:
        """P(|t| < sqrt(degrees) tan(angle))."""
        term, total = (math.cos(angle), 0.0) if degrees % 2 else (1.0, 0.0)
        for k in range(degrees % 2, degrees - 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (k + 1) / (k + 2)
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if degrees % 2 else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def mean_interval(values: list[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % t interval; None for a single value."""
    if len(values) < 2:
        return values[0], None
    half = t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def summarise(runs: dict[str, dict[int, dict[str, Any]]], control: str) -> list[dict[str, Any]]:
    """A row for each method that has finished runs; differences pair the seeds that the control has too."""
    rows = []
    for method, by_seed in runs.items():
        if not by_seed:
            continue
        top1 = [by_seed[seed]["top1"] for seed in sorted(by_seed)]
        row: dict[str, Any] = {"method": method, "seeds": len(top1), "top1": statistics.mean(top1)}
        row["top1_stdev"] = statistics.stdev(top1) if len(top1) > 1 else None
        row["top1_half_interval"] = mean_interval(top1)[1]
        paired = [seed for seed in sorted(by_seed) if method != control and seed in runs.get(control, {})]
        gains = [by_seed[seed]["top1"] - runs[control][seed]["top1"] for seed in paired]
        row["pairs"] = len(gains)
        row["difference"], row["half_interval"] = mean_interval(gains) if gains else (None, None)
        for name in NUMBERS[1:]:
            known = [run[name] for run in by_seed.values() if run[name] is not None]
            row[name] = statistics.mean(known) if known else None
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]], control: str) -> str:
    """The table."""
    lines = [
        f"| method | seeds | last-epoch top-1 (%) | minus {control}, paired, 95 % interval | agrees with teacher (%) |"
        " effective rank | views seen | training (s) |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        spread = "" if row["top1_stdev"] is None else f" ± {row['top1_stdev']:.2f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.2f}"
        if row["half_interval"] is not None:
            ends = row["difference"] - row["half_interval"], row["difference"] + row["half_interval"]
            difference += f" ({ends[0]:+.2f} to {ends[1]:+.2f})"
        rest = zip(NUMBERS[1:], (".2f", ".2f", ",.0f", ".0f"), strict=True)
        cells = [
            f"{row['top1']:.2f}{spread}",
            difference,
            *("" if row[k] is None else f"{row[k]:{f}}" for k, f in rest),
        ]
        lines.append(f"| {row['method']} | {row['seeds']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, runs: dict[str, dict[int, dict[str, Any]]], rows: list[dict[str, Any]], control: str) -> None:
    """Left: each seed, the mean and its interval. Right: paired differences to the control, likewise."""
    if (plt := pyplot()) is None:
        return
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 1.6 + 0.45 * len(rows)), sharey=True, width_ratios=(3, 2), layout="constrained"
    )
    for place, row in enumerate(rows):
        by_seed = runs[row["method"]]
        seeds = sorted(set(by_seed) & set(runs.get(control, {}))) if row["pairs"] else []
        gains = [by_seed[seed]["top1"] - runs[control][seed]["top1"] for seed in seeds]
        panels = (
            (left, [run["top1"] for run in by_seed.values()], row["top1"], row["top1_half_interval"]),
            (right, gains, row["difference"], row["half_interval"]),
        )
        for axis, points, mean, half in panels:
            if points:
                axis.scatter(points, [place - 0.14] * len(points), color=ORANGE, s=22, zorder=2)
                axis.errorbar(mean, place + 0.1, xerr=half, color=BLUE, marker="D", markersize=6, capsize=4, zorder=3)
    left.scatter([], [], color=ORANGE, s=22, label="one seed")
    left.errorbar([], [], xerr=[], color=BLUE, marker="D", markersize=6, capsize=4, label="mean, 95 % interval")
    right.axvline(0, color=GREY, linestyle="--", linewidth=1)
    left.set_yticks(range(len(rows)), [row["method"] for row in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.locator_params(axis="x", nbins=7), right.locator_params(axis="x", nbins=5)
    left.set_xlabel("last-epoch top-1 (%)")
    right.set_xlabel(f"minus {control}, same seed (points)")
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
