"""Recipe and source -> loaders."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from dccd_timm.data.collate import Collate, SkipCounter, no_image
from dccd_timm.data.decode import Reader, decode, image_mode
from dccd_timm.data.device import Erasing, Mixing, NearCopies, ViewPreparer
from dccd_timm.data.fast import FastViews, decode_pixels
from dccd_timm.data.loader import EvalLoader, SavedPosition, TrainLoader, TrainPosition
from dccd_timm.data.sources.base import LoaderOptions, Reading, Source, TrainOrder
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.data.sources.timm_stream import TimmStreamSource
from dccd_timm.data.views import erased_views, eval_view, train_views
from dccd_timm.data.workers import start_server, worker_start
from dccd_timm.errors import UserError
from dccd_timm.recipe import Images, Recipe, plan_views
from dccd_timm.recipe.data_config import DataConfig

_logger = logging.getLogger(__name__)

# Seconds after --data-timeout that the loader still waits for a worker.
_GRACE = 60.0
# Images to whose multiple timm's RepeatAugSampler rounds an epoch down.
_REPEAT_ROUND = 256


@dataclass(frozen=True)
class Rank:
    """The process that a loader is for: its device, its number among all, and what its loader workers do first.

    ``worker_init_fn`` is torch's: each loader worker calls it with its number when it starts.
    """

    device: torch.device
    number: int = 0
    world: int = 1
    worker_init_fn: Callable[[int], None] | None = None


def build_train_loader(
    recipe: Recipe,
    source: Source,
    data_config: DataConfig,
    num_classes: int,
    rank: Rank,
    start_epoch: int = 0,
    state: SavedPosition | None = None,
) -> TrainLoader:
    """Endless training batches for one rank; with the ``state`` of an earlier loader it resumes exactly there.

    Raises:
        UserError: when the data set is smaller than one update's images, or a stream is to repeat its images.
    """
    if recipe.aug_repeats and not isinstance(source, IndexedSource):
        raise UserError(
            "--aug-repeats needs images in any order, as folders, torch/ and hfds/ have them, and not a stream: read"
            " hfds/ in place of hfids/, or drop it (--dccd-views gives several views of an image)"
        )
    if (recipe.dccd_view_period or recipe.kd_cache) and not source.numbered:
        flag = "--dccd-view-period" if recipe.dccd_view_period else "--kd-cache"
        raise UserError(
            f"{flag} needs images with numbers, which come again in each epoch: timm's wds/ and tfds/ have none; read"
            " tars by hfids/, or drop it"
        )
    batches = batches_per_epoch(recipe, source, rank.world)
    reading = _train_reading(recipe, source, data_config, num_classes, rank)
    layout = dict(
        world=rank.world, batch_size=recipe.batch_size, seed=recipe.seed, images=source.num_samples, batches=batches
    )
    layout |= source.layout(reading.options.num_workers)
    if recipe.aug_repeats:
        layout["aug_repeats"] = math.ceil(recipe.aug_repeats)
    saved = _matching_position(state, layout)
    if saved and saved.given % batches and isinstance(source, TimmStreamSource):
        _logger.warning("%s continues at the beginning of an epoch only: this epoch starts again", recipe.dataset)
        saved = None
    position = saved or TrainPosition(layout, given=start_epoch * batches)
    order = TrainOrder(
        recipe.seed, batches, position.given, position.stream_start(start_epoch), recipe.aug_repeats or 1
    )
    loader = source.train_loader(reading, order)
    prepare = _train_preparer(recipe, data_config, num_classes, rank)
    skips, resumed = _skip_counter(recipe), saved is not None
    return TrainLoader(source, loader, batches, prepare, skips, position, num_classes, resumed)


def build_eval_loader(
    images: Images,
    source: Source,
    data_config: DataConfig,
    num_classes: int,
    rank: Rank,
    batch_size: int | None = None,
) -> EvalLoader:
    """Each image of a split once, over all ranks; ``batch_size`` is ``images``' own where it is None."""
    batch_size = batch_size or images.batch_size
    reader = Reader(decode, eval_view(images, data_config), image_mode(images), None, source.indices)
    reading = _reading(images, source, reader, num_classes, batch_size, rank)
    prepare = ViewPreparer(rank.device, data_config["mean"], data_config["std"])
    return EvalLoader(source, source.eval_loader(reading), batch_size, prepare, _skip_counter(images))


def check_readable(images: Images, source: Source, data_config: DataConfig, rank: Rank) -> None:
    """Read ``source`` up to its first image, as an evaluation does.

    Raises:
        UserError: when none of its images can be read, or more cannot than may be skipped.
    """
    alone = replace(rank, number=0, world=1)  # the same answer on every rank
    few = replace(images, workers=min(images.workers, 1))
    loader = build_eval_loader(few, source, data_config, 0, alone, batch_size=1)
    batches = iter(loader)
    try:
        if not any(len(batch.views) for batch in batches):
            raise UserError(no_image("validation split", next(iter(loader.skips.images), "")))
    finally:
        batches.close()


def _train_reading(recipe: Recipe, source: Source, data_config: DataConfig, num_classes: int, rank: Rank) -> Reading:
    views, mode = train_views(recipe, data_config), image_mode(recipe)
    if recipe.pil_views:
        reader = Reader(decode, views, mode, recipe.seed, source.indices, recipe.dccd_view_period)
    else:
        fast = FastViews(views.transforms)
        reader = Reader(decode_pixels, fast, mode, recipe.seed, source.indices, recipe.dccd_view_period)
    return _reading(recipe, source, reader, num_classes, recipe.batch_size, rank)


def _reading(images: Images, source: Source, reader: Reader, num_classes: int, batch_size: int, rank: Rank) -> Reading:
    workers = source.fit_workers(images.workers, rank.world)
    options = LoaderOptions(
        num_workers=workers,
        # a worker that is stuck would stop the run for ever; one that waits for a Hub reports it before that
        timeout=images.data_timeout + _GRACE if workers else 0,
        pin_memory=images.pin_mem and rank.device.type == "cuda",
        worker_init_fn=worker_start(rank.worker_init_fn),
        multiprocessing_context=start_server(images) if workers else None,
        # its own generator: making an iterator draws a seed, which must not move the global one
        generator=torch.Generator().manual_seed(images.seed),
    )
    return Reading(reader, Collate(num_classes), batch_size, rank.number, rank.world, images.data_timeout, options)


def _train_preparer(recipe: Recipe, data_config: DataConfig, num_classes: int, rank: Rank) -> ViewPreparer:
    """What training does on the device: erasing, near copies, mixing.

    Raises:
        UserError: when near copies would be shifted by the whole image.
    """
    erasing = None
    if recipe.reprob > 0 and not recipe.no_aug and not recipe.no_prefetcher:
        erase = RandomErasing(recipe.reprob, mode=recipe.remode, max_count=recipe.recount, device=rank.device)
        erasing = Erasing(erase, erased_views(recipe))
    mixing = None
    if recipe.mixes:
        mixup = Mixup(
            mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, cutmix_minmax=recipe.cutmix_minmax,
            prob=recipe.mixup_prob, switch_prob=recipe.mixup_switch_prob, mode=recipe.mixup_mode,
            label_smoothing=recipe.smoothing, num_classes=num_classes,
        )  # fmt: skip
        mixing = Mixing(mixup, recipe.mixup_off_epoch)
    size = data_config["input_size"][1:]
    shift = recipe.dccd_near_shift
    if shift is None:
        shift = max(1, round(0.02 * max(size)))
    if shift >= min(size):
        raise UserError(f"--dccd-near-shift {shift} is not smaller than the images' size {size}")
    copies = NearCopies(plan_views(recipe.dccd_view_aug, recipe.dccd_views), shift, recipe.dccd_near_noise)
    return ViewPreparer(
        rank.device, data_config["mean"], data_config["std"], erasing, copies, mixing, (recipe.seed, rank.number),
        by_image=recipe.dccd_view_period > 0,
    )  # fmt: skip


def _skip_counter(images: Images) -> SkipCounter:
    return SkipCounter(images.max_data_errors if images.data_errors == "skip" else None)


def _matching_position(state: SavedPosition | None, layout: dict[str, int]) -> TrainPosition | None:
    """A saved position, unless it was saved under another layout."""
    if state is None or state["layout"] == layout:
        return TrainPosition.load(state) if state else None
    changed = [f"{k} {state['layout'].get(k)} -> {v}" for k, v in layout.items() if state["layout"].get(k) != v]
    inside = state["given"] % state["layout"].get("batches", 1)
    then = "this epoch starts again" if inside else "it is another one from this epoch on"
    _logger.warning("the order of the data cannot be resumed exactly (%s): %s", ", ".join(changed), then)
    return None


def batches_per_epoch(recipe: Recipe, source: Source, world: int) -> int:
    """Loader batches of one epoch on each of ``world`` ranks: whole updates only, so that no update is short.

    Raises:
        UserError: when there are not enough images for one.
    """
    if recipe.train_batches_per_epoch:
        batches = recipe.train_batches_per_epoch
        if batches % recipe.grad_accum_steps:
            raise UserError(
                f"--train-batches-per-epoch {batches} is not a multiple of --grad-accum-steps {recipe.grad_accum_steps}"
            )
        return batches
    images = source.num_samples * (recipe.epoch_repeats or 1)
    if recipe.aug_repeats and images >= _REPEAT_ROUND:
        images = images // _REPEAT_ROUND * _REPEAT_ROUND
    per_update = recipe.batch_size * world * recipe.grad_accum_steps
    updates = math.floor(images / per_update)
    if updates == 0:
        raise UserError(
            f"one update takes {per_update} images (batch size {recipe.batch_size} x {world} ranks x"
            f" {recipe.grad_accum_steps} accumulated), the training split has {source.num_samples}: lower --batch-size"
        )
    return updates * recipe.grad_accum_steps
