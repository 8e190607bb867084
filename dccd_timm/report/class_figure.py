"""The picture of a student's answers, class by class."""

from types import ModuleType
from typing import TYPE_CHECKING

from dccd_timm.report.figures import BLUE, ROLES, VERMILION, plain, title_above_legend
from dccd_timm.report.schema import Classes, ConfusedPair

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More would be too small to read at the size of a card
_CLASSES_SHOWN = 10


def classes_figure(plt: ModuleType, classes: Classes) -> "Figure":
    """Agreement with the teacher, the classes that gained and lost most, and the pairs most often confused."""
    panels = {"changes": 0.28 * min(len(classes.per_class), 2 * _CLASSES_SHOWN) + 1.3}
    if classes.outcomes:
        panels = {"outcomes": 2.2, **panels}
    if classes.confused:
        panels["confused"] = 0.34 * len(classes.confused) + 1.3
    figure: Figure
    figure, axes = plt.subplot_mosaic(
        [[name] for name in panels],
        figsize=(9, sum(panels.values()) + 1),
        height_ratios=list(panels.values()),
        layout="constrained",
    )
    figure.suptitle("The student's answers, class by class", fontweight="bold")
    for name, axis in axes.items():
        _PANELS[name](axis, classes)
        axis.grid(axis="y", visible=False)
    return figure


def _plot_outcomes(axis: "Axes", classes: Classes) -> None:
    """How student and teacher compare image by image."""
    bars = axis.barh(list(classes.outcomes), list(classes.outcomes.values()), color=BLUE)
    axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    axis.invert_yaxis()
    title = f"Student and teacher give the same answer to {classes.agreement:.1f} % of the images"
    axis.set(xlim=(0, 105), xlabel="share of all images (%)", ylabel="student and teacher", title=title)


def _plot_changes(axis: "Axes", classes: Classes) -> None:
    """The student's accuracy minus its reference's for each class, or for those with the largest differences."""
    rows = sorted(classes.per_class, key=lambda row: row.change)
    if many := len(rows) > 2 * _CLASSES_SHOWN:
        rows = [*rows[:_CLASSES_SHOWN], *rows[-_CLASSES_SHOWN:]]
    compared = classes.reference != "nothing"
    colours = [BLUE if row.change >= 0 else VERMILION for row in rows]
    axis.barh(range(len(rows)), [row.change for row in rows], color=colours)
    axis.set_yticks(range(len(rows)), [f"{plain(row.name)} ({row.student:.0f} %)" for row in rows], fontsize=9)
    axis.axvline(0, color="black", linewidth=0.8)
    most = f", the {_CLASSES_SHOWN} most on either side" if many else ""
    axis.set(
        xlabel=f"student minus {plain(classes.reference)} (points of accuracy)" if compared else "accuracy (%)",
        ylabel="class (the student's accuracy)",
    )
    for colour, label in ((BLUE, "student better"), (VERMILION, "student worse")) if compared else ():
        axis.barh(0, 0, color=colour, label=label)
    title = f"Accuracy by class{most}"
    title_above_legend(axis, title) if compared else axis.set_title(title)


def _plot_confused(axis: "Axes", classes: Classes) -> None:
    """Bars of each network for every confused pair."""
    pairs = classes.confused
    names = {"student": "student", "control": classes.control, "teacher": "teacher"}
    networks = [name for name in names if getattr(pairs[0], name) is not None]
    for number, network in enumerate(networks):
        offset = 0.27 * (number - (len(networks) - 1) / 2)
        shares = [getattr(pair, network) for pair in pairs]
        rows = [row + offset for row in range(len(pairs))]
        axis.barh(rows, shares, height=0.25, color=ROLES[network], label=plain(names[network]))
    axis.set_yticks(range(len(pairs)), [_confusion(pair) for pair in pairs], fontsize=9)
    axis.invert_yaxis()
    axis.set(
        xlabel="share of the true class's images (%)",
        ylabel="true class and wrong answer",
    )
    title_above_legend(axis, "Classes most often confused by the student")


def _confusion(pair: ConfusedPair) -> str:
    return f"{plain(pair.true)} taken for {plain(pair.answer)}"


_PANELS = {"outcomes": _plot_outcomes, "changes": _plot_changes, "confused": _plot_confused}
