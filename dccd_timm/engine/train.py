"""The training loop: a generator that yields after each epoch; what happens between epochs is its caller's."""

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from timm.task import TrainingTask
from timm.utils import dispatch_clip_grad
from torch import Tensor
from tqdm import tqdm

from dccd_timm.batch import Batch, Progress, fold_views
from dccd_timm.engine.meter import LossMeter
from dccd_timm.recipe import Recipe

_logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Endless batches; ``batches_per_epoch`` of them make an epoch."""

    batches_per_epoch: int
    prepare: Any
    skips: Any

    def __iter__(self) -> Iterator[Batch]: ...


def training_step(
    task: TrainingTask, batch: Batch, optimizer: Any, recipe: Recipe, accelerator: Accelerator
) -> dict[str, Tensor]:
    """Forward, backward and, when enough batches are accumulated, one update."""
    images, target = fold_views(batch.views, batch.target)
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with accelerator.accumulate(task.get_trainable_module()):
        with accelerator.autocast():
            result = task(images, target)
        second_order = getattr(optimizer.optimizer, "is_second_order", False)
        accelerator.backward(result["loss"], **({"create_graph": True} if second_order else {}))
        if accelerator.sync_gradients and recipe.clip_grad is not None:
            accelerator.unscale_gradients(optimizer)
            parameters = task.get_clip_parameters(exclude_head=recipe.clip_mode == "agc")
            dispatch_clip_grad(parameters, recipe.clip_grad, mode=recipe.clip_mode)
        optimizer.step()
        optimizer.zero_grad()
    return result


def train(
    task: TrainingTask,
    loader: Loader,
    optimizer: Any,
    scheduler: Any,
    recipe: Recipe,
    accelerator: Accelerator,
    start_epoch: int,
    num_epochs: int,
) -> Iterator[Progress]:
    """Train ``task`` from ``start_epoch`` to ``num_epochs``, yielding after each epoch.

    Raises:
        UserError: for a loss that is not finite (before anything is yielded, so nothing bad is saved), or bad data.
    """
    updates_per_epoch = loader.batches_per_epoch // recipe.grad_accum_steps
    updates = start_epoch * updates_per_epoch
    if scheduler is not None and start_epoch > 0:
        scheduler.step_update(updates) if recipe.sched_on_updates else scheduler.step(start_epoch)
    batches = iter(loader)
    for epoch in range(start_epoch, num_epochs):
        loader.prepare.set_epoch(epoch)
        task.train()
        meter = LossMeter(accelerator.device)
        began, views, last_log = time.perf_counter(), 0, 0
        with _bar(updates_per_epoch, f"epoch {epoch + 1}/{num_epochs}", accelerator) as bar:
            for _ in range(loader.batches_per_epoch):
                batch = next(batches)
                result = training_step(task, batch, optimizer, recipe, accelerator)
                meter.add(result, updates)
                views += batch.views.shape[0] * batch.views.shape[1] * accelerator.num_processes
                if not accelerator.sync_gradients:
                    continue
                updates += 1
                task.update_ema(step=updates)
                if scheduler is not None:
                    scheduler.step_update(num_updates=updates)
                bar.update()
                if updates - last_log >= recipe.log_interval:
                    last_log = updates
                    losses = meter.means(epoch)
                    _log(bar, epoch, updates, losses, _rate(optimizer), views / (time.perf_counter() - began))
        yield Progress(
            epoch=epoch,
            updates=updates,
            losses=meter.means(epoch, accelerator),
            lr=_rate(optimizer),
            views_per_second=views / (time.perf_counter() - began),
            skipped=loader.skips.count,
        )


def _rate(optimizer: Any) -> float:
    """Mean learning rate over parameter groups, as timm's summary.csv has it."""
    rates = [group["lr"] for group in optimizer.param_groups]
    return sum(rates) / len(rates)


def _bar(total: int, title: str, accelerator: Accelerator) -> Any:
    quiet = not accelerator.is_main_process or not sys.stderr.isatty()
    return tqdm(total=total, desc=title, unit="update", disable=quiet, leave=False, dynamic_ncols=True)


def _log(bar: Any, epoch: int, updates: int, losses: dict[str, float], rate: float, speed: float) -> None:
    parts = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
    if bar.disable:
        _logger.info("epoch %d  update %d  %s  lr %.3g  %.0f views/s", epoch + 1, updates, parts, rate, speed)
    else:
        bar.set_postfix_str(f"{parts}  lr {rate:.3g}  {speed:.0f} views/s")
