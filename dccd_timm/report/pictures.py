"""Pictures of a run: its views, its curves, and what its student's channels and answers are like."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dccd_timm.errors import logged_failure
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report.class_figure import classes_figure
from dccd_timm.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    ROLES,
    SKY,
    VERMILION,
    plain,
    pyplot,
    save_figure,
    title_above_legend,
)
from dccd_timm.report.redundancy import covariance_spectrum, effective_rank, mean_off_diagonal
from dccd_timm.report.schema import NetworkReport, Report
from dccd_timm.report.sensitivity_figure import sensitivity_figure
from dccd_timm.report.summary import loss_columns, read_summary

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

# Numbers of colours and of lines have no common factor, so that as many terms as their product look different
_COLOURS = (BLUE, BLACK, ORANGE, PURPLE, SKY, VERMILION, GREEN)
_LINES = ("-", "--", "-.", ":", (0, (8, 2)))
STUDENT, STUDENT_TEACHER = "with each other", "with the teacher's"
# At the size of a card more would be indistinguishable
_CHANNELS_SHOWN = 128


@dataclass
class Evidence:
    """What a finished run's pictures show; without validation there are curves only.

    ``summaries`` are summary.csv files by label, that of the run itself first. ``features`` are pooled features [N, C]
    by network, ``correlations`` matrices by what is correlated and then by the network whose channels they are.
    """

    report: Report
    summaries: dict[str, Path]
    features: dict[str, Tensor] = field(default_factory=dict)
    correlations: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture of a finished run: ``draw(pyplot, evidence)`` returns a figure, None when there is nothing to show."""

    draw: "Callable[[ModuleType, Evidence], Figure | None]"
    caption: str


def draw_pictures(folder: Path, evidence: Evidence) -> None:
    """Draw all of PICTURES into the ``folder`` of a run; one that cannot be drawn is a warning."""
    if (plt := pyplot()) is None:
        _logger.warning("no pictures: pip install 'dccd-timm[plots]' installs matplotlib")
        return
    for name, picture in PICTURES.items():
        path = folder / "report" / f"{name}.png"
        with logged_failure(f"{path} was not drawn", folder):
            path.unlink(missing_ok=True)  # of an earlier report
            if (figure := picture.draw(plt, evidence)) is not None:
                save_figure(plt, figure, path)
    plt.close("all")  # that of a picture that failed too


def draw_views(
    folder: Path,
    views: Tensor,
    target: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    names: list[str] | None,
) -> None:
    """Draw views [B, V, C, H, W] of the first images of a batch into a run's ``folder``: a column is an image, a row a
    view.

    ``target`` are classes [B] or shares of them [B, K], None for images without labels.
    """
    if (plt := pyplot()) is None:
        return
    views = views[:10].cpu()
    scale, shift = (torch.tensor(v).view(-1, 1, 1) for v in (std, mean))
    pixels = (views * scale + shift).clamp(0, 1)
    count, num_views = pixels.shape[:2]
    figure: Figure
    figure, axes = plt.subplots(num_views, count, figsize=(1.2 * count, 1.3 * num_views + 0.4), squeeze=False)
    for image in range(count):
        for view in range(num_views):
            axis = axes[view][image]
            picture = pixels[image, view].permute(1, 2, 0).squeeze(-1).numpy()
            axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=1)
            axis.set_xticks([]), axis.set_yticks([]), axis.grid(False)
            if image == 0:
                axis.set_ylabel(f"view {view}")
        if target is None:
            continue
        label = int(target[image].argmax() if target.ndim == 2 else target[image])
        axes[0][image].set_title(plain(names[label], 16) if names else f"class {label}", fontsize=8)
    save_figure(plt, figure, folder / "report" / "views.png")


def draw_comparison(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Top-1 and agreement with the teacher as bars: teacher, student and controls."""
    report = evidence.report
    roles = {"teacher": report.teacher, "student": report.student, "control": report.control}
    roles |= {plain(network.label or "control"): network for network in report.further_controls}
    networks = {role: network for role, network in roles.items() if network and network.top1 is not None}
    if "student" not in networks or len(networks) == 1:
        return None
    panels = {"top-1 accuracy (%)": {role: network.top1 for role, network in networks.items()}}
    if report.teacher and report.teacher.classifies:
        panels["images with the teacher's answer (%)"] = {r: n.agreement for r, n in networks.items() if r != "teacher"}
    figure: Figure
    size = (9, 0.55 * len(networks) + 1.4)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained", sharey=True, squeeze=False)
    rows = {role: row for row, role in enumerate(networks)}
    for axis, (what, values) in zip(axes[0], panels.items(), strict=True):
        for role, value in values.items():
            if value is not None:
                axis.bar_label(
                    axis.barh(rows[role], value, color=ROLES.get(role, ROLES["control"])),
                    fmt="%.2f",
                    padding=3,
                    fontsize=9,
                )
        axis.set(xlim=(0, 115), xticks=range(0, 101, 25), xlabel=what)
        axis.grid(axis="y", visible=False)
    labels = {"student": METHODS[report.method].student_label(report.loss_type)}
    shown = [f"{labels.get(role, _shown(evidence, role))}\n{_size(network)}" for role, network in networks.items()]
    axes[0][0].set_yticks(list(rows.values()), shown, fontsize=9)
    axes[0][0].invert_yaxis()
    figure.suptitle(_gain(evidence) or "Accuracy of student and teacher")
    return figure


def _size(network: NetworkReport) -> str:
    return f"{plain(network.name)}, {network.parameters_m:.3f} M"


def _gain(evidence: Evidence) -> str | None:
    """The student's gain over its control, None without one."""
    student, control = evidence.report.student, evidence.report.control
    if student.top1 is None or control is None or control.top1 is None:
        return None
    return f"{student.top1 - control.top1:+.2f} points of top-1 over {_shown(evidence, 'control')}"


def draw_curves(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """The loss and its terms by epoch for the run itself, top-1 and top-5 by epoch for all runs."""
    tables = {plain(label): read_summary(path) for label, path in evidence.summaries.items()}
    figure: Figure
    figure, axes = plt.subplot_mosaic([["loss", "loss"], ["top1", "top5"]], figsize=(9, 7), layout="constrained")
    label, rows = next(iter(tables.items()))
    _plot_losses(axes["loss"], rows, label)
    top1, top5 = ("top1", "top-1"), ("top5", "top-5")
    if not evidence.report.student.classifies:
        top1, top5 = ("knn", "k-NN"), ("probe", "linear probe")
    for panel, (metric, name) in zip(("top1", "top5"), (top1, top5), strict=True):
        for (label, rows), colour, mark in zip(
            tables.items(), itertools.cycle((ROLES["student"], ROLES["control"])), itertools.cycle("os")
        ):
            points = [(int(r["epoch"]) + 1, float(r[f"eval_{metric}"])) for r in rows if r.get(f"eval_{metric}")]
            if points:
                axes[panel].plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=label)
        teacher = getattr(evidence.report.teacher, metric, None)
        if teacher is not None:
            axes[panel].axhline(teacher, color=ROLES["teacher"], linestyle="--", label="teacher")
        axes[panel].set(xlabel="epoch", ylabel=f"validation {name} (%)", title=f"Accuracy, {name}")
    figure.legend(*axes["top1"].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    for axis in axes.values():
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _plot_losses(axis: "Axes", rows: list[dict[str, str]], label: str) -> None:
    """A line for the weighted sum and for each term, however many there are."""
    from matplotlib.ticker import LogLocator

    epochs = [int(row["epoch"]) + 1 for row in rows]
    styles = zip(itertools.cycle(_COLOURS), itertools.cycle(_LINES), strict=False)
    for (column, name), (colour, line) in zip(loss_columns(rows).items(), styles, strict=False):
        axis.plot(epochs, [float(row[column]) for row in rows], color=colour, linestyle=line, label=name)
    axis.set(
        xlabel="epoch",
        ylabel="training loss (terms without weights)",
        yscale="log",
    )
    title_above_legend(axis, f"Loss and its terms: {label}", columns=5)
    for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def draw_channels(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Correlation matrices as heat maps: a row for what is correlated, a column for whose channels they are.

    Of wide networks the first channels are shown.
    """
    if not (panels := evidence.correlations):
        return None
    columns = list(next(iter(panels.values())))
    size = (4.2 * len(columns) + 0.6, 4.2 * len(panels))
    figure: Figure
    figure, axes = plt.subplots(len(panels), len(columns), figsize=size, layout="constrained", squeeze=False)
    for line, (what, matrices) in zip(axes, panels.items(), strict=True):
        for axis, (network, matrix) in zip(line, matrices.items(), strict=True):
            shown = matrix[:_CHANNELS_SHOWN, :_CHANNELS_SHOWN].numpy()
            image = axis.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            part = f" (first {_CHANNELS_SHOWN} of {len(matrix)})" if len(matrix) > _CHANNELS_SHOWN else ""
            if what == STUDENT_TEACHER:
                number = f"mean of the diagonal {float(matrix.diagonal().mean()):.2f}"
                axis.set(xlabel=f"teacher channel{part}", ylabel="teacher channel, read from the student")
            else:
                number = f"mean |correlation| {mean_off_diagonal(matrix):.2f}"
                axis.set(xlabel=f"student channel{part}", ylabel="student channel")
            axis.set_title(f"{_shown(evidence, network)}\n{what}: {number}", fontsize=10)
            axis.grid(False)
    figure.colorbar(image, ax=axes, label="correlation (-1 ... 1)", shrink=0.6)
    return figure


def _shown(evidence: Evidence, network: str) -> str:
    """A network's name in a picture: a control goes by its label."""
    control = evidence.report.control if network == "control" else None
    return plain((control and control.label) or network)


def draw_redundancy(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Spectrum of the covariance of each network's pooled features, with its effective rank."""
    if not evidence.features:
        return None
    figure: Figure
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    lines = {"teacher": "--", "student": "-", "control": "-.", "student before training": ":"}
    for network, values in evidence.features.items():
        shares = 100 * covariance_spectrum(values)
        kept = shares[shares > 1e-4].numpy()
        rank = f"{_shown(evidence, network)}: effective rank {effective_rank(values):.1f} of {values.shape[1]} channels"
        axis.plot(range(1, len(kept) + 1), kept, color=ROLES[network], linestyle=lines[network], label=rank)
    axis.set(xlabel="principal direction of the pooled features (rank)", ylabel="share of the variance (%)",
             yscale="log", title="Spectrum of the feature covariance")  # fmt: skip
    axis.yaxis.set_major_formatter("{x:g}")  # matplotlib's own for powers of ten is a formula
    figure.legend(frameon=False, loc="outside lower center")
    return figure


def draw_classes(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Agreement with the teacher, the classes that gained and lost most, and the pairs most often confused."""
    classes = evidence.report.classes
    return None if classes is None else classes_figure(plt, classes)


# Every picture of a finished run, in the order of the model card. Not the views: they are somebody's images.
PICTURES = {
    "comparison": Picture(
        draw_comparison,
        "Accuracy, and share of the images to which the teacher's class is given. A control of"
        " `--dccd-control` had the same seed, steps and views: the difference to it is the method's.",
    ),
    "curves": Picture(draw_curves, "Validation accuracy and the terms of the training loss by epoch."),
    "channels": Picture(
        draw_channels,
        "Correlation between the channels of the pooled features: of the student before training, of its control if it"
        " has one, and of the student. Below, how well a linear map predicts each teacher channel from them, on images"
        " that it was not fitted on. Training alone raises that: the method's part is the difference to the control.",
    ),
    "redundancy": Picture(
        draw_redundancy,
        "How many directions the features use: the faster a line falls, the more redundant the channels.",
    ),
    "classes": Picture(
        draw_classes,
        "Agreement with the teacher, accuracy class by class, and the pairs of classes most often confused.",
    ),
    "sensitivity": Picture(
        lambda plt, evidence: sensitivity_figure(plt, evidence.report),
        "How the answers follow the teacher's when an image changes a little: the correlation of both changes of the"
        " logits, the ratio of their norms, and how often the class changes together.",
    ),
}
