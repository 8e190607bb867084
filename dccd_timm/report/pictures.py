"""Pictures of a run: its views, its curves, and what its student's channels and answers are like."""

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dccd_timm.report.redundancy import covariance_spectrum, effective_rank, mean_off_diagonal

# Okabe and Ito's palette: distinct for colour-blind readers too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#777777"
BLACK = "#000000"
STUDENT_TEACHER = "student with teacher"
# More would not be told apart at the size of a card
_CHANNELS_SHOWN, _CLASSES_SHOWN = 128, 10


def pyplot() -> Any | None:
    """matplotlib's pyplot without a display, or None when it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
        }
    )
    return plt


def draw_views(path: Path, views: Tensor, target: Tensor, mean: Any, std: Any, names: list[str] | None) -> None:
    """Views [B, V, C, H, W] of the first images of a batch: a column an image, a row a view."""
    if (plt := pyplot()) is None:
        return
    views, target = views[:10].cpu(), target[:10].cpu()
    scale, shift = (torch.tensor(v).view(-1, 1, 1) for v in (std, mean))
    pixels = (views * scale + shift).clamp(0, 1)
    count, num_views = pixels.shape[:2]
    figure, axes = plt.subplots(num_views, count, figsize=(1.2 * count, 1.3 * num_views + 0.4), squeeze=False)
    for image in range(count):
        for view in range(num_views):
            axis = axes[view][image]
            picture = pixels[image, view].permute(1, 2, 0).squeeze(-1)
            axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=1)
            axis.set_xticks([]), axis.set_yticks([]), axis.grid(False)
            if image == 0:
                axis.set_ylabel(f"view {view}")
        label = int(target[image].argmax() if target.ndim == 2 else target[image])
        axes[0][image].set_title(names[label] if names else f"class {label}", fontsize=8)
    _save(plt, figure, path)


def draw_curves(path: Path, runs: dict[str, Path], teacher: dict[str, float]) -> None:
    """Loss parts of the first of ``runs`` (label to summary.csv) by epoch, and top-1 and top-5 of all of them."""
    if (plt := pyplot()) is None:
        return
    tables = {label: _read(file) for label, file in runs.items()}
    figure, axes = plt.subplot_mosaic([["loss", "loss"], ["top1", "top5"]], figsize=(9, 7), layout="constrained")
    label, rows = next(iter(tables.items()))
    parts = [k for k in rows[0] if k.startswith("train_") and k.endswith("loss")] if rows else []
    styles = zip(parts, (BLUE, GREY, ORANGE, GREEN, PURPLE), ("-", "--", "-.", ":", (0, (8, 2))), strict=False)
    for part, colour, line in styles:
        name = part.removeprefix("train_").replace("_", " ")
        name = "loss (weighted sum)" if name == "loss" else name
        epochs = [int(r["epoch"]) + 1 for r in rows]
        axes["loss"].plot(epochs, [float(r[part]) for r in rows], color=colour, linestyle=line, label=name)
    axes["loss"].set(
        xlabel="epoch",
        ylabel="training loss (parts without weights)",
        yscale="log",
        title=f"Loss and its parts: {label}",
    )
    axes["loss"].legend(frameon=False)
    for ticks in (axes["loss"].yaxis.set_major_formatter, axes["loss"].yaxis.set_minor_formatter):
        ticks("{x:g}")
    axes["loss"].yaxis.get_minor_locator().set_params(subs=(2, 5))
    for metric, name in (("top1", "top-1"), ("top5", "top-5")):
        for (label, rows), (colour, mark) in zip(tables.items(), ((BLUE, "o"), (GREY, "s")), strict=False):
            points = [(int(r["epoch"]) + 1, float(r[f"eval_{metric}"])) for r in rows if r.get(f"eval_{metric}")]
            if points:
                axes[metric].plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=label)
        if metric in teacher:
            axes[metric].axhline(teacher[metric], color=ORANGE, linestyle="--", label="teacher")
        axes[metric].set(xlabel="epoch", ylabel=f"validation {name} (%)", title=f"Accuracy, {name}")
    figure.legend(*axes["top1"].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    for axis in axes.values():
        axis.xaxis.get_major_locator().set_params(integer=True)
    _save(plt, figure, path)


def draw_channels(path: Path, panels: dict[str, dict[str, Tensor]]) -> None:
    """Correlation matrices as heat maps: a row of ``panels`` for what is correlated, a column for when.

    Of wide networks the first channels are shown.
    """
    if (plt := pyplot()) is None:
        return
    columns = list(next(iter(panels.values())))
    size = (9, 4.2 * len(panels))
    figure, axes = plt.subplots(len(panels), len(columns), figsize=size, layout="constrained", squeeze=False)
    for line, (what, matrices) in zip(axes, panels.items(), strict=True):
        for axis, (when, matrix) in zip(line, matrices.items(), strict=True):
            shown = matrix[:_CHANNELS_SHOWN, :_CHANNELS_SHOWN]
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
    _save(plt, figure, path)


def draw_redundancy(path: Path, features: dict[str, Tensor]) -> None:
    """Spectrum of the covariance of each network's pooled features [N, C], with its effective rank."""
    if (plt := pyplot()) is None:
        return
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    styles = {"teacher": (ORANGE, "--"), "student before training": (GREEN, ":"), "student": (BLUE, "-")}
    for label, values in features.items():
        shares = 100 * covariance_spectrum(values)
        kept = shares[shares > 1e-4]
        colour, line = styles.get(label, (GREY, "-."))
        rank = f"{label}: effective rank {effective_rank(values):.1f} of {values.shape[1]} channels"
        axis.plot(range(1, len(kept) + 1), kept, color=colour, linestyle=line, label=rank)
    axis.set(xlabel="principal direction of the pooled features (rank)", ylabel="share of the variance (%)",
             yscale="log", title="Spectrum of the feature covariance")  # fmt: skip
    axis.legend(frameon=False)
    _save(plt, figure, path)


def draw_classes(path: Path, found: dict[str, Any]) -> None:
    """What ``evidence`` found about answers: agreement with the teacher, classes won and lost, pairs confused."""
    if (plt := pyplot()) is None:
        return
    rows = found["per_class"]
    many = len(rows) > 2 * _CLASSES_SHOWN
    shown = sorted(rows, key=lambda row: row["change"])
    shown = [*shown[:_CLASSES_SHOWN], *shown[-_CLASSES_SHOWN:]] if many else shown
    pairs, outcomes = found["confused"], found["outcomes"]
    heights = [1.8 if outcomes else 0.01, 0.28 * len(shown) + 0.8, 0.28 * len(pairs) + 0.8]
    figure, axes = plt.subplots(3, 1, figsize=(9, sum(heights) + 1.5), height_ratios=heights, layout="constrained")
    if outcomes:
        bars = axes[0].barh(list(outcomes), list(outcomes.values()), color=BLUE)
        axes[0].bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
        axes[0].invert_yaxis()
        title = f"Student and teacher give the same answer to {found['agreement']:.1f} % of the images"
        axes[0].set(xlim=(0, 105), xlabel="images (%)", title=title)
    else:
        axes[0].set_visible(False)
    changes = [row["change"] for row in shown]
    axes[1].barh(range(len(shown)), changes, color=[BLUE if c >= 0 else ORANGE for c in changes])
    axes[1].set_yticks(range(len(shown)), [f"{row['name']} ({row['student']:.0f} %)" for row in shown], fontsize=9)
    most = f", the {_CLASSES_SHOWN} most on either side" if many else ""
    axes[1].axvline(0, color=BLACK, linewidth=0.8)
    axes[1].set(xlabel=f"student - {found['reference']} (points of accuracy)",
                title=f"Accuracy class by class (the student's in brackets){most}")  # fmt: skip
    labels = [f"{pair['true']} taken for {pair['answer']}" for pair in pairs]
    networks = [k for k in ("student", "control", "teacher") if pairs and k in pairs[0]]
    for number, network in enumerate(networks):
        colour, name = {"student": (BLUE, "student"), "control": (GREY, found["control"]),
                        "teacher": (ORANGE, "teacher")}[network]  # fmt: skip
        places = [k + 0.27 * (number - (len(networks) - 1) / 2) for k in range(len(pairs))]
        axes[2].barh(places, [pair[network] for pair in pairs], height=0.25, color=colour, label=name)
    axes[2].set_yticks(range(len(pairs)), labels, fontsize=9)
    axes[2].invert_yaxis()
    axes[2].set(xlabel="images of the true class (%)", title="Classes most often confused by the student")
    if networks:
        axes[2].legend(frameon=False, loc="lower right")
    _save(plt, figure, path)


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _save(plt: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
