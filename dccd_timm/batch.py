"""What crosses the stages: a batch of views, and progress.

Axes: B images of one rank's batch, V views of each image, C channels, H and W pixels, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypedDict

import torch
from torch import Tensor


class MeterState(TypedDict, total=False):
    """Loss terms of an unfinished epoch: names, sums over ``count`` batches."""

    names: list[str]
    sums: list[float]
    count: int


@dataclass
class Draws:
    """What a batch's views were drawn from: seeds [B], one for an image and its views, and the epochs [B] in them; and
    ``sketches`` [B, V, P], a few pixels of each view, by which other views are noticed."""

    seeds: Tensor
    epochs: Tensor
    sketches: Tensor


@dataclass
class Batch:
    """One loader batch, sample-first, so that no slice of axis 0 can separate the views of an image.

    ``views`` [B, V, C, H, W], ``target`` [B] class indices or [B, K] soft targets. ``skipped`` names what could not be
    read, with a number of images each; ``fatal`` is a problem that has to stop the run. ``position`` is where
    loader worker ``worker`` stands after this batch. ``draws`` are None where nothing was drawn.
    """

    views: Tensor
    target: Tensor
    skipped: list[tuple[str, int]] = field(default_factory=list)
    fatal: str | None = None
    worker: int = 0
    position: dict[str, int] | None = None
    draws: Draws | None = None

    @classmethod
    def empty(cls, skipped: list[tuple[str, int]] | None = None, fatal: str | None = None) -> Self:
        """A batch without images, to say what happened."""
        return cls(torch.empty(0, 1, 3, 1, 1), torch.empty(0, dtype=torch.long), skipped or [], fatal)

    def pin_memory(self) -> Self:
        """For DataLoader: page-locked copies, which go to the GPU without blocking."""
        return replace(self, views=self.views.pin_memory(), target=self.target.pin_memory())


@dataclass
class Progress:
    """Where a training stands, after an epoch or, with ``complete`` false, inside one.

    ``losses`` are means over the epoch so far, ``lr`` of the last update. A resume continues after ``batches`` of this
    epoch with the losses in ``meter``. ``skipped_updates`` counts those that were not finite, in the whole training;
    ``images`` and ``views`` count those that this rank has trained on since its process began.
    ``stop`` asks to save and exit; it is the same on all ranks.
    """

    epoch: int
    updates: int
    losses: dict[str, float]
    lr: float
    views_per_second: float
    skipped: int = 0
    stop: bool = False
    complete: bool = True
    batches: int = 0
    meter: MeterState = field(default_factory=lambda: MeterState())
    skipped_updates: int = 0
    images: int = 0
    views: int = 0


def fold_views(views: Tensor | Sequence[Tensor], target: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Turn views into timm's view-major order: row v * B + b is view v of image b.

    [B, V, C, H, W], or V tensors [B, C, H, W] as torch's own collate function gives them, with [B] or [B, K] become
    [V * B, C, H, W] with [V * B] or [V * B, K]. A 4-d batch is folded already and returned as it is.

    Raises:
        ValueError: for other shapes, or another number of views than ``count``.
    """
    if isinstance(views, Tensor) and views.ndim == 4 and len(views) == len(target) and len(views) % (count or 1) == 0:
        return views, target
    parts = views.unbind(1) if isinstance(views, Tensor) and views.ndim == 5 else views
    fits = not isinstance(parts, Tensor) and len(parts) == (count or len(parts)) and len(parts) > 0
    if not fits or any(p.ndim != 4 or p.shape != parts[0].shape or len(p) != len(target) for p in parts):
        raise ValueError(f"{_shapes(views)} with target {list(target.shape)}: {_wanted(count)}")
    return torch.cat(tuple(parts)), target.repeat(len(parts), *[1] * (target.ndim - 1))


def check_view_major(target: Tensor, count: int) -> None:
    """Refuse a folded batch whose parts are no views of the same images: each part has to have the same targets.

    It waits for the device.

    Raises:
        ValueError: shows the shapes that are wanted.
    """
    parts = target.unflatten(0, (count, -1))
    if not bool((parts == parts[:1]).all()):
        raise ValueError(
            f"the {count} parts of target {list(target.shape)} differ, so they are no views: {_wanted(count)}"
        )


def _shapes(views: Tensor | Sequence[Tensor]) -> str:
    if isinstance(views, Tensor):
        return f"input {list(views.shape)}"
    return f"input of {len(views)} tensors {', '.join(str(list(v.shape)) for v in views)}"


def _wanted(count: int | None) -> str:
    number = count or "V"
    return (
        f"give {number} views of each of B images, as [B, {number}, C, H, W] or as {number} tensors [B, C, H, W], with"
        f" target [B] or [B, K], or view-major as [{number} * B, C, H, W] with target [{number} * B]"
    )
