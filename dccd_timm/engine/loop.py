"""The training loop: a generator that yields after each epoch; what happens between epochs is its caller's."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from timm.task import TrainingTask
from timm.utils import dispatch_clip_grad
from torch import Tensor
from tqdm import tqdm

from dccd_timm.batch import Batch, Progress, fold_views
from dccd_timm.engine.meter import LossMeter
from dccd_timm.engine.nonfinite import UpdateGuard
from dccd_timm.recipe import Recipe

# Seconds between two questions to all ranks whether to stop: asking waits for the device.
_ASK_AFTER = 2.0
_logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Endless batches; ``batches_per_epoch`` of them make an epoch."""

    batches_per_epoch: int
    prepare: Any
    skips: Any

    def __iter__(self) -> Iterator[Batch]: ...


def training_step(
    task: TrainingTask,
    batch: Batch,
    optimizer: Any,
    recipe: Recipe,
    accelerator: Accelerator,
    may_update: Callable[[], bool],
) -> tuple[dict[str, Tensor], bool]:
    """Forward, backward and, when enough batches are accumulated and ``may_update`` says so, one update.

    Returns what the task gave, and whether weights changed.
    """
    images, target = fold_views(batch.views, batch.target)
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with accelerator.accumulate(task.get_trainable_module()):
        with accelerator.autocast():
            result = task(images, target)
        second_order = getattr(optimizer.optimizer, "is_second_order", False)
        accelerator.backward(result["loss"], **({"create_graph": True} if second_order else {}))
        passes = accelerator.sync_gradients and may_update()
        if passes and recipe.clip_grad is not None:
            accelerator.unscale_gradients(optimizer)
            parameters = task.get_clip_parameters(exclude_head=recipe.clip_mode == "agc")
            dispatch_clip_grad(parameters, recipe.clip_grad, mode=recipe.clip_mode)
        if passes:
            optimizer.step()
        optimizer.zero_grad()
    return result, passes and not optimizer.step_was_skipped


@dataclass(frozen=True)
class Start:
    """Where to begin: ``batches`` of epoch ``epoch`` are over, and ``meter`` holds their losses."""

    epoch: int = 0
    batches: int = 0
    meter: dict[str, Any] = field(default_factory=dict)


def train(
    task: TrainingTask,
    loader: Loader,
    optimizer: Any,
    scheduler: Any,
    recipe: Recipe,
    accelerator: Accelerator,
    start: Start,
    num_epochs: int,
    stopping: Callable[[], bool],
) -> Iterator[Progress]:
    """Train ``task`` from ``start`` to ``num_epochs``, yielding after each epoch.

    It also yields inside an epoch, with ``complete`` false: every ``recovery_interval`` updates, and when ``stopping``
    says so; the caller saves, and does not come back in the second case. Ranks agree on it every few updates.

    Raises:
        UserError: for a loss that is not finite (before anything is yielded, so nothing bad is saved), or bad data.
    """
    updates_per_epoch = loader.batches_per_epoch // recipe.grad_accum_steps
    updates = start.epoch * updates_per_epoch + start.batches // recipe.grad_accum_steps
    if scheduler is not None and updates > 0:
        scheduler.step_update(updates) if recipe.sched_on_updates else scheduler.step(start.epoch)
    batches = iter(loader)
    asking = _Asking(accelerator, stopping)
    guard = UpdateGuard(recipe.nonfinite, task.get_trainable_module(), accelerator.scaler is not None)
    for epoch in range(start.epoch, num_epochs):
        loader.prepare.set_epoch(epoch)
        task.train()
        meter = LossMeter(accelerator.device, guard.skips)
        done = 0
        if epoch == start.epoch and start.batches:
            meter.load(start.meter)
            done = start.batches
        began, views, last_log = time.perf_counter(), 0, 0
        with _bar(updates_per_epoch, f"epoch {epoch + 1}/{num_epochs}", accelerator) as bar:
            bar.update(done // recipe.grad_accum_steps)
            for number in range(done + 1, loader.batches_per_epoch + 1):
                batch = next(batches)
                may_update = partial(guard.passes, meter, updates)
                result, changed = training_step(task, batch, optimizer, recipe, accelerator, may_update)
                meter.add(result, updates)
                views += batch.views.shape[0] * batch.views.shape[1] * accelerator.num_processes
                if not accelerator.sync_gradients:
                    continue
                updates += 1
                if changed:
                    task.update_ema(step=updates)
                if scheduler is not None:
                    scheduler.step_update(num_updates=updates)
                bar.update()
                if updates - last_log >= recipe.log_interval:
                    last_log = updates
                    losses = meter.means(epoch)
                    speed = views / (time.perf_counter() - began)
                    _log(bar, epoch, updates, losses, _rate(optimizer), speed)
                    accelerator.log({**losses, "lr": _rate(optimizer), "views_per_second": speed}, step=updates)
                if number < loader.batches_per_epoch:
                    due = recipe.recovery_interval > 0 and updates % recipe.recovery_interval == 0
                    stop = asking.stop_now()
                    if stop or due:
                        speed = views / (time.perf_counter() - began)
                        losses = meter.means(epoch, accelerator)
                        yield Progress(
                            epoch, updates, losses, _rate(optimizer), speed, loader.skips.count,
                            stop, complete=False, batches=number, meter=meter.state(),
                        )  # fmt: skip
        speed = views / (time.perf_counter() - began)
        losses, stop = meter.means(epoch, accelerator), asking.agreed()
        yield Progress(
            epoch, updates, losses, _rate(optimizer), speed, loader.skips.count, stop,
            batches=loader.batches_per_epoch, meter=meter.state(), skipped_updates=guard.count,
        )  # fmt: skip


class _Asking:
    """Whether any rank wants to stop: all ask together, in the same updates, and not so often that it costs."""

    def __init__(self, accelerator: Accelerator, stopping: Callable[[], bool]) -> None:
        self.accelerator, self.stopping = accelerator, stopping
        self.interval, self.passed, self.began = 1, 0, time.monotonic()

    def stop_now(self) -> bool:
        """Behind each update: ask, if it is time."""
        if self.accelerator.num_processes == 1:
            return self.stopping()
        self.passed += 1
        return self.passed >= self.interval and self.agreed()

    def agreed(self) -> bool:
        """Ask all ranks."""
        if self.accelerator.num_processes == 1:
            return self.stopping()
        own = torch.tensor([float(self.stopping()), time.monotonic() - self.began], device=self.accelerator.device)
        wishes, seconds = self.accelerator.reduce(own).tolist()
        # the same on all ranks, since it comes from the same sum
        per_update = seconds / self.accelerator.num_processes / max(self.passed, 1)
        self.interval = max(1, min(100, int(_ASK_AFTER / max(per_update, 1e-3))))
        self.passed, self.began = 0, time.monotonic()
        return wishes > 0


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
