"""Recipe and source -> loaders."""

import logging
import math
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch.utils.data import DataLoader

from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.loader import (
    EvalLoader,
    TrainLoader,
    _Collate,
    _EpochSampler,
    _MapViews,
    _Reader,
    _StreamViews,
)
from dccd_timm.data.source import AnySource, MapSource, StreamSource, TimmStreamSource, image_mode
from dccd_timm.data.views import eval_view, train_views
from dccd_timm.recipe import Recipe, UserError

_logger = logging.getLogger(__name__)


def mixing(recipe: Recipe) -> bool:
    """Whether batches are mixed, so that targets are soft."""
    return recipe.mixup > 0 or recipe.cutmix > 0 or recipe.cutmix_minmax is not None


def build_train_loader(
    recipe: Recipe,
    source: AnySource,
    data_config: dict[str, Any],
    num_classes: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    start_epoch: int = 0,
) -> TrainLoader:
    """Endless training batches for one rank.

    Raises:
        UserError: when the data set is smaller than one update's images.
    """
    batches = _batches_per_epoch(recipe, source, world)
    reader = _Reader(train_views(recipe, data_config), image_mode(recipe), recipe.seed)
    workers = _useful_workers(recipe.workers, source, world)
    shared: dict[str, Any] = _loader_options(recipe, workers, device, num_classes)
    if isinstance(source, MapSource):
        sampler = _EpochSampler(source.num_samples, recipe.batch_size, batches, recipe.seed, rank, world, start_epoch)
        loader = DataLoader(_MapViews(source, reader, True), batch_sampler=sampler, **shared)
    else:
        passes = None
        if isinstance(source, TimmStreamSource):
            passes = 1
            source.dataset.set_loader_cfg(num_workers=workers)
        views = _StreamViews(source, reader, rank, world, passes, start_epoch)
        loader = DataLoader(views, batch_size=recipe.batch_size, drop_last=True, **shared)

    erasing = None
    if recipe.reprob > 0 and not recipe.no_aug and not recipe.no_prefetcher:
        erasing = RandomErasing(recipe.reprob, mode=recipe.remode, max_count=recipe.recount, device=device)
    mixup = None
    if mixing(recipe):
        mixup = Mixup(
            mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, cutmix_minmax=recipe.cutmix_minmax,
            prob=recipe.mixup_prob, switch_prob=recipe.mixup_switch_prob, mode=recipe.mixup_mode,
            label_smoothing=recipe.smoothing, num_classes=num_classes,
        )  # fmt: skip
    prepare = ViewPreparer(
        device, data_config["mean"], data_config["std"], erasing, recipe.resplit, mixup, recipe.mixup_off_epoch
    )
    return TrainLoader(source, loader, batches, prepare, recipe.max_data_errors)


def build_eval_loader(
    recipe: Recipe,
    source: AnySource,
    data_config: dict[str, Any],
    num_classes: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> EvalLoader:
    """Each image of a split once, over all ranks."""
    reader = _Reader(eval_view(recipe, data_config), image_mode(recipe), None)
    shared = _loader_options(recipe, _useful_workers(recipe.workers, source, 1), device, num_classes)
    batch_size = recipe.validation_batch_size or recipe.batch_size
    if isinstance(source, MapSource):
        part = [(0, index) for index in range(rank, source.num_samples, world)]
        loader = DataLoader(_MapViews(source, reader, False), batch_size=batch_size, sampler=part, **shared)
    else:
        if isinstance(source, TimmStreamSource):
            source.dataset.set_loader_cfg(num_workers=shared["num_workers"])
        loader = DataLoader(_StreamViews(source, reader, rank, world, 1), batch_size=batch_size, **shared)
    prepare = ViewPreparer(device, data_config["mean"], data_config["std"])
    return EvalLoader(source, loader, prepare, recipe.max_data_errors)


def _batches_per_epoch(recipe: Recipe, source: AnySource, world: int) -> int:
    """Loader batches of one epoch: whole updates only, so that no update is short."""
    if recipe.train_batches_per_epoch:
        batches = recipe.train_batches_per_epoch
        if batches % recipe.grad_accum_steps:
            raise UserError(
                f"--train-batches-per-epoch {batches} is no multiple of --grad-accum-steps {recipe.grad_accum_steps}"
            )
        return batches
    images = source.num_samples * (recipe.epoch_repeats or 1)
    per_update = recipe.batch_size * world * recipe.grad_accum_steps
    updates = math.floor(images / per_update)
    if updates == 0:
        raise UserError(
            f"one update takes {per_update} images (batch size {recipe.batch_size} x {world} ranks x"
            f" {recipe.grad_accum_steps} accumulated), the training split has {source.num_samples}: lower --batch-size"
        )
    return updates * recipe.grad_accum_steps


def _useful_workers(workers: int, source: AnySource, world: int) -> int:
    """Fewer workers for a stream with fewer shards: a worker without a shard would have nothing to read."""
    if not isinstance(source, StreamSource):
        return workers
    useful = min(workers, max(1, source.dataset.num_shards // world)) if workers else 0
    if useful < workers:
        _logger.info("%d loader workers instead of %d: the stream has %d shards", useful, workers,
                     source.dataset.num_shards)  # fmt: skip
    return useful


def _loader_options(recipe: Recipe, workers: int, device: torch.device, num_classes: int) -> dict[str, Any]:
    return dict(
        num_workers=workers,
        collate_fn=_Collate(num_classes),
        pin_memory=recipe.pin_mem and device.type == "cuda",
        # its own generator: making an iterator draws a seed, which must not move the global one
        generator=torch.Generator().manual_seed(recipe.seed),
    )
