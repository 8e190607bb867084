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
from dccd_timm.report.figures import plain, pyplot, save_figure
from dccd_timm.report.redundancy import covariance_spectrum, effective_rank, mean_off_diagonal
from dccd_timm.report.schema import Classes, ConfusedPair, Report
from dccd_timm.report.summary import loss_columns, read_summary

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

# Okabe and Ito's palette: distinct for colour-blind readers too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#777777"
BLACK, VERMILION, SKY = "#000000", "#D55E00", "#56B4E9"
# Numbers of colours and of lines have no common factor, so that as many terms as their product look different
_COLOURS = (BLUE, GREY, ORANGE, GREEN, PURPLE, VERMILION, SKY)
_LINES = ("-", "--", "-.", ":", (0, (8, 2)))
STUDENT, STUDENT_TEACHER = "student with itself", "student with teacher"
# At the size of a card more would be indistinguishable
_CHANNELS_SHOWN, _CLASSES_SHOWN = 128, 10


@dataclass
class Evidence:
    """What a finished run's pictures show; without validation there are curves only.

    ``summaries`` are summary.csv files by label, that of the run itself first. ``features`` are pooled features [N, C]
    by network, ``correlations`` matrices by what is correlated and then by when (before or after training).
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
    target: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    names: list[str] | None,
) -> None:
    """Draw views [B, V, C, H, W] of the first images of a batch into a run's ``folder``: a column is an image, a row a
    view.

    ``target`` are classes [B] or shares of them [B, K].
    """
    if (plt := pyplot()) is None:
        return
    views, target = views[:10].cpu(), target[:10].cpu()
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
        label = int(target[image].argmax() if target.ndim == 2 else target[image])
        axes[0][image].set_title(plain(names[label], 16) if names else f"class {label}", fontsize=8)
    save_figure(plt, figure, folder / "report" / "views.png")


def draw_curves(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """The loss and its terms by epoch for the run itself, top-1 and top-5 by epoch for all runs."""
    tables = {plain(label): read_summary(path) for label, path in evidence.summaries.items()}
    figure: Figure
    figure, axes = plt.subplot_mosaic([["loss", "loss"], ["top1", "top5"]], figsize=(9, 7), layout="constrained")
    label, rows = next(iter(tables.items()))
    _plot_losses(axes["loss"], rows, label)
    for metric, name in (("top1", "top-1"), ("top5", "top-5")):
        for (label, rows), colour, mark in zip(tables.items(), itertools.cycle((BLUE, GREY)), itertools.cycle("os")):
            points = [(int(r["epoch"]) + 1, float(r[f"eval_{metric}"])) for r in rows if r.get(f"eval_{metric}")]
            if points:
                axes[metric].plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=label)
        teacher = getattr(evidence.report.teacher, metric, None)
        if teacher is not None:
            axes[metric].axhline(teacher, color=ORANGE, linestyle="--", label="teacher")
        axes[metric].set(xlabel="epoch", ylabel=f"validation {name} (%)", title=f"Accuracy, {name}")
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
        title=f"Loss and its terms: {label}",
    )
    axis.legend(frameon=False)
    for set_formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        set_formatter("{x:g}")
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))


def draw_channels(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Correlation matrices as heat maps: a row for what is correlated, a column for when.

    Of wide networks the first channels are shown.
    """
    if not (panels := evidence.correlations):
        return None
    columns = list(next(iter(panels.values())))
    size = (9, 4.2 * len(panels))
    figure: Figure
    figure, axes = plt.subplots(len(panels), len(columns), figsize=size, layout="constrained", squeeze=False)
    for line, (what, matrices) in zip(axes, panels.items(), strict=True):
        for axis, (when, matrix) in zip(line, matrices.items(), strict=True):
            shown = matrix[:_CHANNELS_SHOWN, :_CHANNELS_SHOWN].numpy()
            image = axis.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            part = f" (first {_CHANNELS_SHOWN} of {len(matrix)})" if len(matrix) > _CHANNELS_SHOWN else ""
            if what == STUDENT_TEACHER:
                number = f"mean of the diagonal {float(matrix.diagonal().mean()):.2f}"
                axis.set(xlabel=f"teacher channel{part}", ylabel="read from the student")
            else:
                number = f"mean |correlation| {mean_off_diagonal(matrix):.2f}"
                axis.set(xlabel=f"student channel{part}", ylabel="student channel")
            axis.set_title(f"{what}, {when} training\n{number}", fontsize=11)
            axis.grid(False)
    figure.colorbar(image, ax=axes, label="correlation (-1 ... 1)", shrink=0.6)
    return figure


def draw_redundancy(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Spectrum of the covariance of each network's pooled features, with its effective rank."""
    if not evidence.features:
        return None
    figure: Figure
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    styles = {"teacher": (ORANGE, "--"), "student before training": (GREEN, ":"), "student": (BLUE, "-")}
    for network, values in evidence.features.items():
        shares = 100 * covariance_spectrum(values)
        kept = shares[shares > 1e-4].numpy()
        colour, line = styles.get(network, (GREY, "-."))
        control = evidence.report.control if network == "control" else None
        shown = plain((control and control.label) or network)
        rank = f"{shown}: effective rank {effective_rank(values):.1f} of {values.shape[1]} channels"
        axis.plot(range(1, len(kept) + 1), kept, color=colour, linestyle=line, label=rank)
    axis.set(xlabel="principal direction of the pooled features (rank)", ylabel="share of the variance (%)",
             yscale="log", title="Spectrum of the feature covariance")  # fmt: skip
    axis.legend(frameon=False)
    return figure


def draw_classes(plt: ModuleType, evidence: Evidence) -> "Figure | None":
    """Agreement with the teacher, the classes that gained and lost most, and the pairs most often confused."""
    if (classes := evidence.report.classes) is None:
        return None
    rows = sorted(classes.per_class, key=lambda row: row.change)
    if many := len(rows) > 2 * _CLASSES_SHOWN:
        rows = [*rows[:_CLASSES_SHOWN], *rows[-_CLASSES_SHOWN:]]
    outcomes = classes.outcomes
    heights = [1.8 if outcomes else 0.01, 0.28 * len(rows) + 0.8, 0.28 * len(classes.confused) + 0.8]
    figure: Figure
    figure, axes = plt.subplots(3, 1, figsize=(9, sum(heights) + 1.5), height_ratios=heights, layout="constrained")
    if outcomes:
        bars = axes[0].barh(list(outcomes), list(outcomes.values()), color=BLUE)
        axes[0].bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        axes[0].invert_yaxis()
        title = f"Student and teacher give the same answer to {classes.agreement:.1f} % of the images"
        axes[0].set(xlim=(0, 105), xlabel="images (%)", title=title)
    else:
        axes[0].set_visible(False)
    changes = [row.change for row in rows]
    axes[1].barh(range(len(rows)), changes, color=[BLUE if c >= 0 else ORANGE for c in changes])
    axes[1].set_yticks(range(len(rows)), [f"{plain(row.name)} ({row.student:.0f} %)" for row in rows], fontsize=9)
    axes[1].axvline(0, color=BLACK, linewidth=0.8)
    most = f", the {_CLASSES_SHOWN} most on either side" if many else ""
    axes[1].set(xlabel=f"student - {plain(classes.reference)} (points of accuracy)",
                title=f"Accuracy class by class (the student's in brackets){most}")  # fmt: skip
    _plot_confused(axes[2], classes)
    return figure


def _plot_confused(axis: "Axes", classes: Classes) -> None:
    """Bars of each network for every confused pair."""
    pairs = classes.confused
    styles = {"student": (BLUE, "student"), "control": (GREY, classes.control), "teacher": (ORANGE, "teacher")}
    networks = [name for name in styles if pairs and getattr(pairs[0], name) is not None]
    for number, network in enumerate(networks):
        colour, label = styles[network]
        offset = 0.27 * (number - (len(networks) - 1) / 2)
        shares = [getattr(pair, network) for pair in pairs]
        axis.barh([k + offset for k in range(len(pairs))], shares, height=0.25, color=colour, label=label)
    axis.set_yticks(range(len(pairs)), [_confusion(pair) for pair in pairs], fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="images of the true class (%)", title="Classes most often confused by the student")
    if networks:
        axis.legend(frameon=False, loc="lower right")


def _confusion(pair: ConfusedPair) -> str:
    return f"{plain(pair.true)} taken for {plain(pair.answer)}"


# Every picture of a finished run, in the order of the model card. Not the views: they are somebody's images.
PICTURES = {
    "curves": Picture(draw_curves, "Validation accuracy and the terms of the training loss by epoch."),
    "channels": Picture(
        draw_channels,
        "Correlation between channels of the pooled features, before and after training; below, how well each teacher"
        " channel can be predicted from the student's by a linear map, on images that the map was not fitted on.",
    ),
    "redundancy": Picture(
        draw_redundancy,
        "How many directions the features use: the faster a line falls, the more redundant the channels.",
    ),
    "classes": Picture(
        draw_classes,
        "Agreement with the teacher, accuracy class by class, and the pairs of classes most often confused.",
    ),
}
