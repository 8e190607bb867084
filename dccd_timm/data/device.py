"""What happens to a batch on the device: copy, normalise, erase, near copies, mix; sample-first all the way."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F

from dccd_timm.batch import Batch
from dccd_timm.data.views import seeded
from dccd_timm.recipe import View


class ViewPreparer:
    """Moves batches to the device and finishes what the workers left.

    What is random here is drawn from ``seed`` and the batch's number, so that a resumed run draws the same.

    Args:
        mean, std: normalisation in [0, 1] pixel units; applied to uint8 views only, floats come normalised.
        views: the plan of all views, to put near copies where they belong; None for batches that are complete.
        near: largest shift in pixels and standard deviation of the noise, in [0, 1] pixel units, of near copies.
        erasing: timm's RandomErasing on the device, each view drawn by itself.
        erased: which of the drawn views may be erased.
        mixup: timm's Mixup.
        mixup_off_epoch: no mixing from this epoch on, if above 0.
        seed: seed and rank.
    """

    def __init__(
        self,
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        views: Sequence[View] | None = None,
        near: tuple[int, float] = (1, 0.0),
        erasing: RandomErasing | None = None,
        erased: Sequence[bool] = (),
        mixup: Mixup | None = None,
        mixup_off_epoch: int = 0,
        seed: tuple[int, int] = (0, 0),
    ) -> None:
        self.device = device
        self.mean, self.std = (torch.tensor(v, device=device).view(-1, 1, 1) * 255 for v in (mean, std))
        self.views = list(views) if views and any(v.near is not None for v in views) else None
        self.near_shift, self.near_noise = near
        self.erasing, self.erased = erasing, erased
        self.mixup, self.mixup_off_epoch = mixup, mixup_off_epoch
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch, for ``mixup_off_epoch``."""
        if self.mixup is not None and self.mixup_off_epoch:
            self.mixup.mixup_enabled = epoch < self.mixup_off_epoch

    def __call__(self, batch: Batch, number: int = 0) -> Batch:
        """Views uint8 or float [B, V, C, H, W] of batch ``number`` to normalised float on the device, with targets."""
        views = batch.views.to(self.device, non_blocking=True)
        target = batch.target.to(self.device, non_blocking=True)
        raw = views.dtype == torch.uint8
        if raw:
            views = (views.float() - self.mean) / self.std
        if self.erasing is None and self.views is None and self.mixup is None:
            return replace(batch, views=views, target=target)
        with seeded(*self.seed, number, device=self.device):
            if raw and self.erasing is not None:
                for view, erased in enumerate(self.erased):
                    if erased:  # a slice is a view of the batch: timm erases in place
                        self.erasing(views[:, view])
            if self.views is not None:
                views = self._with_copies(views)
            if self.mixup is not None:
                views, target = self._mix(views, target)
        return replace(batch, views=views, target=target)

    def _with_copies(self, drawn: Tensor) -> Tensor:
        """All views from the drawn ones: a near copy has the crop, flip, colour and erased boxes of its original."""
        assert self.views is not None
        rows = iter(range(drawn.shape[1]))
        place = {number: next(rows) for number, view in enumerate(self.views) if view.near is None}
        views = [
            drawn[:, place[number]] if view.near is None else self._near(drawn[:, place[view.near]])
            for number, view in enumerate(self.views)
        ]
        return torch.stack(views, dim=1)

    def _near(self, images: Tensor) -> Tensor:
        """Normalised images [B, C, H, W], each moved by a few pixels (mirrored at the border) and a little noisy."""
        shift, (count, _, height, width) = self.near_shift, images.shape
        if shift:
            # never by nothing at all: one of the (2 s + 1)^2 - 1 other places, around the middle one
            side = 2 * shift + 1
            place = torch.randint(side * side - 1, (count,), device=images.device)
            place = place + (place >= side * side // 2)
            rows = torch.arange(height, device=images.device) + (place // side)[:, None]
            columns = torch.arange(width, device=images.device) + (place % side)[:, None]
            padded = F.pad(images, (shift,) * 4, mode="reflect")
            image = torch.arange(count, device=images.device)[:, None, None]
            images = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.near_noise:
            images = images + torch.randn_like(images) * (self.near_noise * 255 / self.std)
        return images

    def _mix(self, views: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix image i with image j, view by view, by one lambda and one box.

        A mixed sample must stay V views of one (mixed) instance, or KD, contrast and difference would compare views
        of different things. Channels and views are folded together, so timm draws once for all views of an image and
        each view is mixed with the same view of the partner; a near pair of views stays near.
        """
        shape = views.shape
        mixed, target = self.mixup(views.flatten(1, 2), target)  # type: ignore[misc]
        return mixed.view(shape), target
