"""Recipe and source -> loaders."""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from torch.utils.data import DataLoader

from dccd_timm.data.decode import Collate, Reader, SkipCounter
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.fast import FastViews
from dccd_timm.data.loader import AnySource, EpochSampler, EvalLoader, MapViews, TimmStreamViews, TrainLoader
from dccd_timm.data.sources.hfids import StreamSource, open_stream
from dccd_timm.data.sources.timm_readers import MapSource, TimmStreamSource, image_mode, open_timm
from dccd_timm.data.stream import Place, StreamBatches
from dccd_timm.data.views import erased_views, eval_view, train_views
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, plan_views

_logger = logging.getLogger(__name__)

# Seconds beyond --data-timeout that the loader waits for a worker.
_GRACE = 60.0


def open_split(recipe: Recipe, split: str, is_training: bool) -> AnySource:
    """Open one split of the recipe's data set.

    Raises:
        UserError: missing or empty folder, unknown split or column, unreadable data set; one line with the mend.
    """
    if recipe.dataset.startswith("hfids/"):
        return open_stream(recipe, split, is_training)
    return open_timm(recipe, split, is_training)


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
    state: dict[str, Any] | None = None,
    worker_init_fn: Callable[[int], None] | None = None,
) -> TrainLoader:
    """Endless training batches for one rank; ``state`` of an earlier loader makes it go on exactly there.

    ``worker_init_fn`` is torch's: each loader worker calls it with its number when it starts.

    Raises:
        UserError: when the data set is smaller than one update's images.
    """
    batches = _batches_per_epoch(recipe, source, world)
    views = train_views(recipe, data_config)
    reader = Reader(views if recipe.pil_views else FastViews(views.transforms), image_mode(recipe), recipe.seed)
    workers = _useful_workers(recipe.workers, source, world)
    options, collate = _loader_options(recipe, workers, device, worker_init_fn), Collate(num_classes)
    layout: dict[str, int] = dict(
        world=world, batch_size=recipe.batch_size, seed=recipe.seed, images=source.num_samples, batches=batches
    )
    if isinstance(source, StreamSource):
        layout |= dict(workers=workers, shards=source.num_shards)
    state = _fitting(state, layout)
    given = state["given"] if state else start_epoch * batches
    position: dict[str, Any] = (
        {"turn": state["turn"], "places": state["places"]} if state else {"turn": 0, "places": {}}
    )
    loader: DataLoader[Any]
    if isinstance(source, MapSource):
        sampler = EpochSampler(source.num_samples, recipe.batch_size, batches, recipe.seed, rank, world, given)
        images = MapViews(source, reader, skips_to_next=True)
        loader = DataLoader(images, batch_sampler=sampler, collate_fn=collate, **options)
    elif isinstance(source, TimmStreamSource):
        source.dataset.set_loader_cfg(num_workers=workers)
        stream = TimmStreamViews(source, reader, start_epoch)
        loader = DataLoader(stream, batch_size=recipe.batch_size, drop_last=True, collate_fn=collate, **options)
    else:
        places = {int(worker): Place(**place) for worker, place in position["places"].items()}
        batches_of = StreamBatches(
            source, reader, collate, recipe.batch_size, rank, world, recipe.data_timeout, start_epoch, places,
            position["turn"],
        )  # fmt: skip
        loader = DataLoader(batches_of, batch_size=None, **options)

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
    shift = recipe.dccd_near_shift
    if shift is None:
        shift = max(1, round(0.02 * max(data_config["input_size"][1:])))
    if shift >= min(data_config["input_size"][1:]):
        raise UserError(f"--dccd-near-shift {shift} moves images of {data_config['input_size'][1:]} out of themselves")
    prepare = ViewPreparer(
        device, data_config["mean"], data_config["std"], plan_views(recipe.dccd_view_aug, recipe.dccd_views),
        (shift, recipe.dccd_near_noise), erasing, erased_views(recipe), mixup, recipe.mixup_off_epoch,
        (recipe.seed, rank),
    )  # fmt: skip
    return TrainLoader(source, loader, batches, prepare, _skips(recipe), layout, given, position)


def build_eval_loader(
    recipe: Recipe,
    source: AnySource,
    data_config: dict[str, Any],
    num_classes: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    worker_init_fn: Callable[[int], None] | None = None,
) -> EvalLoader:
    """Each image of a split once, over all ranks; ``worker_init_fn`` is torch's."""
    reader = Reader(eval_view(recipe, data_config), image_mode(recipe), None)
    options = _loader_options(recipe, _useful_workers(recipe.workers, source, world), device, worker_init_fn)
    batch_size, collate = recipe.validation_batch_size or recipe.batch_size, Collate(num_classes)
    loader: DataLoader[Any]
    if isinstance(source, MapSource):
        images = MapViews(source, reader, skips_to_next=False)
        part = [(0, index) for index in range(rank, source.num_samples, world)]
        loader = DataLoader(images, batch_size=batch_size, sampler=part, collate_fn=collate, **options)
    elif isinstance(source, TimmStreamSource):
        source.dataset.set_loader_cfg(num_workers=options["num_workers"])
        views = TimmStreamViews(source, reader)
        loader = DataLoader(views, batch_size=batch_size, collate_fn=collate, **options)
    else:
        stream = StreamBatches(source, reader, collate, batch_size, rank, world, recipe.data_timeout)
        loader = DataLoader(stream, batch_size=None, **options)
    prepare = ViewPreparer(device, data_config["mean"], data_config["std"])
    return EvalLoader(source, loader, batch_size, prepare, _skips(recipe))


def _skips(recipe: Recipe) -> SkipCounter:
    return SkipCounter(recipe.max_data_errors if recipe.data_errors == "skip" else None)


def _fitting(state: dict[str, Any] | None, layout: dict[str, Any]) -> dict[str, Any] | None:
    """A saved position, unless it was saved under another layout."""
    if state is None or state["layout"] == layout:
        return state
    changed = [f"{k} {state['layout'].get(k)} -> {v}" for k, v in layout.items() if state["layout"].get(k) != v]
    _logger.warning("the order of the data cannot go on exactly (%s): it starts at this epoch anew", ", ".join(changed))
    return None


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
    """Loader workers for this source: a stream is read in workers only, and each of them needs a shard."""
    if not isinstance(source, StreamSource):
        return workers
    wanted = max(workers, 1)
    source.for_readers(wanted * world)
    useful = min(wanted, max(1, source.num_shards // world))
    if source.num_shards < world:  # every rank reads all shards and keeps its part of the rows
        useful = min(wanted, source.num_shards)
    if useful < wanted:
        _logger.info("%d loader workers instead of %d: the stream has %d shards", useful, wanted, source.num_shards)
    return useful


def _loader_options(
    recipe: Recipe, workers: int, device: torch.device, worker_init_fn: Callable[[int], None] | None
) -> dict[str, Any]:
    return dict(
        num_workers=workers,
        # a worker that is stuck would hold up the run for ever; one that waits for a Hub says so before that
        timeout=recipe.data_timeout + _GRACE if workers else 0,
        pin_memory=recipe.pin_mem and device.type == "cuda",
        worker_init_fn=worker_init_fn,
        # its own generator: making an iterator draws a seed, which must not move the global one
        generator=torch.Generator().manual_seed(recipe.seed),
    )
