"""The picture of how student and control follow the teacher through minor changes of an image."""

from types import ModuleType
from typing import TYPE_CHECKING

from dccd_timm.report.figures import BLACK, ROLES, plain
from dccd_timm.report.schema import Following, Report

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

# Following's fields with the panel's axis and the value of a network that follows the teacher in full
_PANELS = {
    "correlation": ("correlation with the teacher's change", 1),
    "norm_ratio": ("norm of the change / teacher's", 1),
    "flip_agreement": ("class changes in both\namong those in either (%)", 100),
}

_OVER_LINES = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def sensitivity_figure(plt: ModuleType, report: Report) -> "Figure | None":
    """A panel for each measure, a row for each change, a bar for the student and for the control; None without any."""
    if (sensitivity := report.sensitivity) is None:
        return None
    control = (report.control and report.control.label) or "control"
    changes = sensitivity.changes
    rows: dict[str, list[Following | None]] = {
        "student": [change.student for change in changes],
        "control": [change.control for change in changes],
    }
    networks = {name: found for name, values in rows.items() if (found := [v for v in values if v is not None])}
    figure: Figure
    size = (11, 0.55 * len(changes) + 1.6)
    figure, axes = plt.subplots(1, len(_PANELS), figsize=size, layout="constrained", sharey=True)
    for axis, (measure, (label, goal)) in zip(axes, _PANELS.items(), strict=True):
        for number, (name, values) in enumerate(networks.items()):
            places = [row + 0.36 * (number - (len(networks) - 1) / 2) for row in range(len(values))]
            known = [(p, v) for p, f in zip(places, values, strict=True) if (v := getattr(f, measure)) is not None]
            if known:
                at, widths = zip(*known, strict=True)
                bars = axis.barh(at, widths, height=0.34, color=ROLES[name])
                axis.bar_label(bars, fmt="%.0f" if goal == 100 else "%.2f", padding=3, fontsize=8, bbox=_OVER_LINES)
        axis.axvline(goal, color=BLACK, linestyle="--", linewidth=1)
        axis.set(xlabel=label, xlim=(min(0, axis.get_xlim()[0]), 1.2 * max(goal, axis.get_xlim()[1])))
        axis.grid(axis="y", visible=False)
    shown = [f"{change.name}\n(teacher's class changes: {change.teacher_flips:.1f} %)" for change in changes]
    axes[0].set_yticks(range(len(changes)), shown, fontsize=9)
    axes[0].invert_yaxis()
    for name in networks:
        axes[0].barh(0, 0, color=ROLES[name], label=plain(control) if name == "control" else name)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figure.suptitle(f"Answers to minor changes of {sensitivity.images} images, beside the teacher's")
    return figure
