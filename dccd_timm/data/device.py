"""What happens to a batch on the device: copy, normalise, erase, near copies, mix; sample-first throughout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F

from dccd_timm.batch import Batch
from dccd_timm.data.seeds import seeded
from dccd_timm.recipe import View

Views = Float[Tensor, "batch views channels height width"]


@dataclass(frozen=True)
class Erasing:
    """timm's RandomErasing on the device, for those of the drawn views that ``views`` says; each is drawn by itself."""

    erase: RandomErasing
    views: Sequence[bool]


@dataclass(frozen=True)
class NearCopies:
    """Where near copies of drawn views belong, and how much they differ.

    Args:
        views: the plan of all views.
        shift: largest shift in pixels.
        noise: standard deviation of the noise, in [0, 1] pixel units.
    """

    views: Sequence[View]
    shift: int = 1
    noise: float = 0.0


@dataclass(frozen=True)
class Mixing:
    """timm's Mixup and CutMix, until epoch ``off_epoch`` if that is above 0."""

    mixup: Mixup
    off_epoch: int = 0


class ViewPreparer:
    """Moves batches to the device and finishes what the workers left.

    What is random here is drawn from ``seed`` and the batch's number, so that a resumed run draws the same.

    Args:
        device: where batches go.
        mean, std: normalisation in [0, 1] pixel units; applied to uint8 views only, floats come normalised.
        erasing: random erasing of uint8 views.
        copies: near copies; None for batches that are complete.
        mixing: mixing of images.
        seed: seed and rank.
        by_image: whether erasing and near copies are drawn for each image from what its views were drawn from, so that
            they come again with these views.
    """

    def __init__(
        self,
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        erasing: Erasing | None = None,
        copies: NearCopies | None = None,
        mixing: Mixing | None = None,
        seed: tuple[int, int] = (0, 0),
        by_image: bool = False,
    ) -> None:
        self.device = device
        self.mean, self.std = (torch.tensor(v, device=device).view(-1, 1, 1) * 255 for v in (mean, std))
        self.erasing, self.mixing, self.seed, self.by_image = erasing, mixing, seed, by_image
        self.copies = copies if copies and any(view.near is not None for view in copies.views) else None

    def set_epoch(self, epoch: int) -> None:
        """Switch mixing off at its last epoch."""
        if self.mixing is not None and self.mixing.off_epoch:
            self.mixing.mixup.mixup_enabled = epoch < self.mixing.off_epoch

    def __call__(self, batch: Batch, number: int = 0) -> Batch:
        """Views uint8 or float [B, V, C, H, W] of batch ``number`` to normalised float on the device, with targets."""
        views = batch.views.to(self.device, non_blocking=True)
        target = batch.target.to(self.device, non_blocking=True)
        raw = views.dtype == torch.uint8
        if raw:
            views = (views.float() - self.mean) / self.std
        if self.erasing is None and self.copies is None and self.mixing is None:
            return replace(batch, views=views, target=target)
        if self.by_image and (self.erasing is not None or self.copies is not None):
            views = self._finished_by_image(views, batch, raw)
        with seeded(*self.seed, number, device=self.device):
            if not self.by_image:
                views = self._finished(views, raw)
            if self.mixing is not None:
                views, target = _mix(self.mixing.mixup, views, target)
        return replace(batch, views=views, target=target)

    def _finished_by_image(
        self, drawn: Float[Tensor, "batch drawn channels height width"], batch: Batch, raw: bool
    ) -> Float[Tensor, "batch views channels height width"]:
        """All views, those of each image drawn by themselves."""
        assert batch.draws is not None
        finished = []
        for image, seed in zip(drawn.split(1), batch.draws.seeds.tolist(), strict=True):
            with seeded(seed, device=self.device):
                finished.append(self._finished(image, raw))
        return torch.cat(finished)

    def _finished(
        self, drawn: Float[Tensor, "batch drawn channels height width"], raw: bool
    ) -> Float[Tensor, "batch views channels height width"]:
        """All views from the drawn ones: erased where those are ``raw``, and near copies."""
        if raw and self.erasing is not None:
            for view, erased in enumerate(self.erasing.views):
                if erased:  # a slice is a view of the batch: timm erases in place
                    self.erasing.erase(drawn[:, view])
        return drawn if self.copies is None else self._with_copies(drawn, self.copies)

    def _with_copies(
        self, drawn: Float[Tensor, "batch drawn channels height width"], copies: NearCopies
    ) -> Float[Tensor, "batch views channels height width"]:
        """All views from the drawn ones: a near copy has the crop, flip, colour and erased boxes of its original."""
        columns = iter(range(drawn.shape[1]))
        column_of = {number: next(columns) for number, view in enumerate(copies.views) if view.near is None}
        views = [
            drawn[:, column_of[number]] if view.near is None else self._near(drawn[:, column_of[view.near]], copies)
            for number, view in enumerate(copies.views)
        ]
        return torch.stack(views, dim=1)

    def _near(
        self, images: Float[Tensor, "batch channels height width"], copies: NearCopies
    ) -> Float[Tensor, "batch channels height width"]:
        """Normalised images, each moved by a few pixels (mirrored at the border) and a little noisy."""
        if copies.shift:
            images = _shifted(images, copies.shift)
        if copies.noise:
            images = images + torch.randn_like(images) * (copies.noise * 255 / self.std)
        return images


def _shifted(
    images: Float[Tensor, "batch channels height width"], shift: int
) -> Float[Tensor, "batch channels height width"]:
    """Images, each moved by up to ``shift`` pixels in each direction, never by nothing at all."""
    count, _, height, width = images.shape
    # one of the (2 s + 1)^2 - 1 other shifts, around the middle one
    side = 2 * shift + 1
    moved = torch.randint(side * side - 1, (count,), device=images.device)
    moved = moved + (moved >= side * side // 2)
    rows = torch.arange(height, device=images.device) + (moved // side)[:, None]
    columns = torch.arange(width, device=images.device) + (moved % side)[:, None]
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    image = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mix(mixup: Mixup, views: Views, target: Int[Tensor, " batch"]) -> tuple[Views, Float[Tensor, "batch classes"]]:
    """Mix image i with image j, view by view, by one lambda and one box.

    A mixed sample must stay V views of one (mixed) instance, or KD, contrast and difference would compare views
    of different things. Channels and views are folded together, so timm draws once for all views of an image and
    each view is mixed with the same view of the partner; a near pair of views stays near.
    """
    mixed, soft_target = mixup(views.flatten(1, 2), target)
    return mixed.view(views.shape), soft_target
