"""Pictures of a run: its views, its curves, the redundancy of its student."""

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dccd_timm.redundancy import channel_correlation, covariance_spectrum, effective_rank, mean_off_diagonal

_logger = logging.getLogger(__name__)

# Okabe and Ito's palette: distinct for colour-blind readers too
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#777777"


def pyplot() -> Any | None:
    """matplotlib's pyplot without a display, or None when it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3})
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


def draw_curves(path: Path, runs: dict[str, Path], teacher_top1: float | None) -> None:
    """Accuracy of each run in ``runs`` (label to summary.csv) by epoch, and the loss parts of the last of them."""
    if (plt := pyplot()) is None:
        return
    tables = {label: _read(file) for label, file in runs.items()}
    figure, (accuracy, loss) = plt.subplots(1, 2, figsize=(11, 4))
    for (label, rows), colour in zip(tables.items(), (GREY, BLUE) if len(tables) > 1 else (BLUE,), strict=False):
        points = [(int(r["epoch"]) + 1, float(r["eval_top1"])) for r in rows if r.get("eval_top1")]
        if points:
            accuracy.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=label)
    if teacher_top1 is not None:
        accuracy.axhline(teacher_top1, color=ORANGE, linestyle="--", label="teacher")
    accuracy.set(xlabel="epoch", ylabel="validation top-1 (%)", title="Accuracy")
    accuracy.legend(frameon=False, loc="lower right")
    rows = list(tables.values())[-1]
    parts = [k for k in rows[0] if k.startswith("train_") and k.endswith("loss")] if rows else []
    for part, colour in zip(parts, (BLUE, GREY, ORANGE, GREEN, PURPLE), strict=False):
        name = part.removeprefix("train_").replace("_", " ")
        loss.plot([int(r["epoch"]) + 1 for r in rows], [float(r[part]) for r in rows], color=colour, label=name)
    loss.set(xlabel="epoch", ylabel="training loss, unweighted parts", yscale="log", title="Loss")
    loss.legend(frameon=False, fontsize=8)
    _save(plt, figure, path)


def draw_redundancy(path: Path, features: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Channel correlation and variance spectrum of each network's pooled features [N, C]; returns the figures shown."""
    numbers = {}
    for label, values in features.items():
        correlation = channel_correlation(values)
        numbers[label] = {
            "effective_rank": round(effective_rank(values), 3),
            "mean_abs_correlation": round(mean_off_diagonal(correlation), 4),
            "channels": values.shape[1],
        }
    if (plt := pyplot()) is None:
        _logger.warning("no pictures: pip install 'dccd-timm[plots]' brings matplotlib")
        return numbers
    figure, axes = plt.subplots(1, len(features) + 1, figsize=(4 * len(features) + 5, 4), layout="constrained")
    image = None
    for axis, (label, values) in zip(axes, features.items(), strict=False):
        image = axis.imshow(channel_correlation(values), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        off = numbers[label]["mean_abs_correlation"]
        axis.set(title=f"{label}\nmean |correlation| {off:.3f}", xlabel="channel", ylabel="channel")
        axis.grid(False)
    figure.colorbar(image, ax=list(axes[:-1]), label="channel correlation", shrink=0.8)
    for (label, values), colour in zip(features.items(), (ORANGE, BLUE, GREY), strict=False):
        shares = covariance_spectrum(values).clamp_min(1e-8)
        rank = numbers[label]["effective_rank"]
        axes[-1].plot(range(1, len(shares) + 1), shares, color=colour, label=f"{label}: effective rank {rank:.1f}")
    axes[-1].set(
        xlabel="principal direction", ylabel="share of variance", yscale="log", title="Spectrum of the features"
    )
    axes[-1].legend(frameon=False)
    _save(plt, figure, path)
    return numbers


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _save(plt: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
