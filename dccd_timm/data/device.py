"""What happens to a batch on the device: copy, normalise, erase, mix; sample-first all the way."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from dccd_timm.batch import Batch


class ViewPreparer:
    """Moves batches to the device and finishes what the workers left.

    Args:
        mean, std: normalisation in [0, 1] pixel units; applied to uint8 views only, floats come normalised.
        erasing: timm's RandomErasing on the device, each view drawn by itself.
        first_clean: leave view 0 unerased (``--resplit``).
        mixup: timm's Mixup.
        mixup_off_epoch: no mixing from this epoch on, if above 0.
    """

    def __init__(
        self,
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        erasing: RandomErasing | None = None,
        first_clean: bool = False,
        mixup: Mixup | None = None,
        mixup_off_epoch: int = 0,
    ) -> None:
        self.device = device
        self.mean, self.std = (torch.tensor(v, device=device).view(-1, 1, 1) * 255 for v in (mean, std))
        self.erasing, self.first_clean = erasing, first_clean
        self.mixup, self.mixup_off_epoch = mixup, mixup_off_epoch

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch, for ``mixup_off_epoch``."""
        if self.mixup is not None and self.mixup_off_epoch:
            self.mixup.mixup_enabled = epoch < self.mixup_off_epoch

    def __call__(self, batch: Batch) -> Batch:
        """Views uint8 or float [B, V, C, H, W] to normalised float on the device; targets with them."""
        views = batch.views.to(self.device, non_blocking=True)
        target = batch.target.to(self.device, non_blocking=True)
        if views.dtype == torch.uint8:
            views = (views.float() - self.mean) / self.std
            self._erase(views)
        if self.mixup is not None:
            views, target = self._mix(views, target)
        return replace(batch, views=views, target=target)

    def _erase(self, views: Tensor) -> None:
        if self.erasing is not None:
            for view in range(1 if self.first_clean else 0, views.shape[1]):
                # a slice is a view of the batch: timm erases in place
                self.erasing(views[:, view])

    def _mix(self, views: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mix image i with image j, view by view, by one lambda and one box.

        A mixed sample must stay V views of one (mixed) instance, or KD, contrast and difference would compare views
        of different things. Channels and views are folded together, so timm draws once for all views of an image and
        each view is mixed with the same view of the partner; a near pair of views stays near.
        """
        shape = views.shape
        mixed, target = self.mixup(views.flatten(1, 2), target)  # type: ignore[misc]
        return mixed.view(shape), target
