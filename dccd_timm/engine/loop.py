"""The training loop: a generator that yields after each epoch; what happens between epochs is its caller's."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.task import TrainingTask
from tqdm import tqdm

from dccd_timm.batch import Batch, MeterState, Progress
from dccd_timm.engine.meter import LossMeter
from dccd_timm.engine.nonfinite import UpdateGuard
from dccd_timm.engine.optim import Schedule, mean_learning_rate
from dccd_timm.engine.step import training_step
from dccd_timm.engine.timing import Forecast
from dccd_timm.recipe import Recipe

# Seconds between two questions to all ranks whether to stop: asking waits for the device.
_ASK_AFTER = 2.0
_logger = logging.getLogger(__name__)

# What is left out of tqdm's own leaves the bar some room in 80 columns.
BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Preparer(Protocol):
    """Makes batches ready on the device."""

    def set_epoch(self, epoch: int) -> None:
        """Switch to this epoch's augmentations."""


class Skips(Protocol):
    """Counts images that could not be read."""

    @property
    def count(self) -> int:
        """Images skipped so far."""


class Loader(Protocol):
    """Endless batches; ``batches_per_epoch`` of them make an epoch."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch, on every rank."""

    @property
    def prepare(self) -> Preparer:
        """What prepares the batches."""

    @property
    def skips(self) -> Skips:
        """What counts the images that could not be read."""

    def __iter__(self) -> Iterator[Batch]: ...


@runtime_checkable
class WarmsUp(Protocol):
    """A task whose loss depends on how far the training is."""

    def set_progress(self, epochs: float) -> None:
        """Tell how many epochs are done."""


@dataclass(frozen=True)
class Start:
    """Where to begin: ``batches`` of epoch ``epoch`` are done, and ``meter`` holds their losses.

    ``skipped_updates`` counts those of the training so far.
    """

    epoch: int = 0
    batches: int = 0
    meter: MeterState = field(default_factory=lambda: MeterState())
    skipped_updates: int = 0

    def updates(self, batches_per_epoch: int, accumulated: int) -> int:
        """Updates before it, where an epoch has so many batches and ``accumulated`` of them make an update."""
        return (self.epoch * batches_per_epoch + self.batches) // accumulated


def train(
    task: TrainingTask,
    loader: Loader,
    optimizer: AcceleratedOptimizer,
    schedule: Schedule,
    recipe: Recipe,
    accelerator: Accelerator,
    start: Start,
    stopping: Callable[[], bool],
) -> Iterator[Progress]:
    """Train ``task`` from ``start`` to the schedule's last epoch, yielding after each epoch.

    It also yields inside an epoch, with ``complete`` false: every ``recovery_interval`` updates, and when ``stopping``
    says so; the caller saves, and does not come back in the second case. Ranks agree on it every few updates.

    Raises:
        UserError: for a loss that is not finite (before anything is yielded, so nothing bad is saved), or bad data.
    """
    trainer = _Trainer(task, loader, optimizer, schedule, recipe, accelerator, start, stopping)
    schedule.resume(start.epoch, trainer.updates)
    batches = iter(loader)
    for epoch in range(start.epoch, schedule.num_epochs):
        yield from trainer.train_epoch(epoch, batches)


class _Trainer:
    """What :func:`train` keeps from update to update."""

    def __init__(
        self,
        task: TrainingTask,
        loader: Loader,
        optimizer: AcceleratedOptimizer,
        schedule: Schedule,
        recipe: Recipe,
        accelerator: Accelerator,
        start: Start,
        stopping: Callable[[], bool],
    ) -> None:
        self.task, self.loader, self.optimizer, self.schedule = task, loader, optimizer, schedule
        self.recipe, self.accelerator, self.start = recipe, accelerator, start
        self.stop_vote, self.forecast = _StopVote(accelerator, stopping), Forecast()
        scaled, trainable = accelerator.scaler is not None, task.get_trainable_module()
        assert trainable is not None
        self.guard = UpdateGuard(recipe.nonfinite, trainable, scaled, start.skipped_updates)
        self.updates_per_epoch = loader.batches_per_epoch // recipe.grad_accum_steps
        self.updates = start.updates(loader.batches_per_epoch, recipe.grad_accum_steps)
        self.images = self.views = 0
        # what accelerate counts batches with; saved under another number of them it would shift all accumulations
        accelerator.step = start.batches

    def train_epoch(self, epoch: int, batches: Iterator[Batch]) -> Iterator[Progress]:
        """Train one epoch, or the rest of the one to start with; yields as :func:`train` does."""
        self.loader.prepare.set_epoch(epoch)
        self.task.train()
        meter, done = LossMeter(self.accelerator.device, self.guard.skips), 0
        if epoch == self.start.epoch and self.start.batches:
            meter.load(self.start.meter)
            done = self.start.batches
        speed, last_log = _Speed(self.accelerator.num_processes), 0
        bar = _progress_bar(self.updates_per_epoch, f"epoch {epoch + 1}/{self.schedule.num_epochs}", self.accelerator)
        with bar:
            bar.update(done // self.recipe.grad_accum_steps)
            for number in range(done + 1, self.loader.batches_per_epoch + 1):
                self._step(next(batches), meter, speed)
                if not self.accelerator.sync_gradients:
                    continue
                bar.update()
                self._announce_time(bar)
                if self.updates - last_log >= self.recipe.log_interval:
                    last_log = self.updates
                    self._log(bar, epoch, meter, speed)
                if number < self.loader.batches_per_epoch:
                    stop = self.stop_vote.ask_if_due()
                    if stop or self._recovery_is_due():
                        yield self._progress(epoch, number, meter, speed, stop)
        stop = self.stop_vote.ask()
        yield self._progress(epoch, self.loader.batches_per_epoch, meter, speed, stop)

    def _step(self, batch: Batch, meter: LossMeter, speed: "_Speed") -> None:
        if isinstance(self.task, WarmsUp):
            self.task.set_progress(self.updates / self.updates_per_epoch)
        may_update = partial(self.guard.may_update, meter, self.updates)
        result, changed = training_step(self.task, batch, self.optimizer, self.recipe, self.accelerator, may_update)
        meter.add(result, self.updates)
        speed.add(batch)
        self.images += len(batch.views)
        self.views += batch.views.shape[0] * batch.views.shape[1]
        if self.accelerator.sync_gradients:
            self.updates += 1
            if changed:
                self.task.update_ema(step=self.updates)
            self.schedule.end_update(self.updates)

    def _announce_time(self, bar: "tqdm[NoReturn]") -> None:
        line = self.forecast.after_update(self.schedule.num_epochs * self.updates_per_epoch - self.updates)
        if line and self.updates_per_epoch > self.forecast.updates:  # else the line of an epoch has said it
            bar.clear()
            _logger.info("%s", line)

    def _recovery_is_due(self) -> bool:
        interval = self.recipe.recovery_interval
        return interval > 0 and self.updates % interval == 0

    def _progress(self, epoch: int, batches: int, meter: LossMeter, speed: "_Speed", stop: bool) -> Progress:
        views_per_second = speed.views_per_second()
        return Progress(
            epoch=epoch,
            updates=self.updates,
            losses=meter.means(epoch, self.accelerator),
            lr=mean_learning_rate(self.optimizer),
            views_per_second=views_per_second,
            skipped=self.loader.skips.count,
            stop=stop,
            complete=batches == self.loader.batches_per_epoch,
            batches=batches,
            meter=meter.state(),
            skipped_updates=self.guard.count,
            images=self.images,
            views=self.views,
        )

    def _log(self, bar: "tqdm[NoReturn]", epoch: int, meter: LossMeter, speed: "_Speed") -> None:
        losses = meter.means(epoch)
        rate, views_per_second = mean_learning_rate(self.optimizer), speed.views_per_second()
        parts = "  ".join(f"{name.removesuffix('_loss')} {value:.4g}" for name, value in losses.items())
        if bar.disable:
            _logger.info(
                "epoch %d/%d  update %d  %s  lr %.3g  %.0f views/s",
                epoch + 1, self.schedule.num_epochs, self.updates, parts, rate, views_per_second,
            )  # fmt: skip
        else:
            bar.set_postfix_str(f"loss {losses['loss']:.4g}, {views_per_second:.0f} views/s")
        self.accelerator.log({**losses, "lr": rate, "views_per_second": views_per_second}, step=self.updates)


class _StopVote:
    """Whether any rank was told to stop: all ask together, in the same updates, and seldom enough to cost little."""

    def __init__(self, accelerator: Accelerator, stopping: Callable[[], bool]) -> None:
        self.accelerator, self.stopping = accelerator, stopping
        self.interval, self.updates, self.began = 1, 0, time.monotonic()

    def ask_if_due(self) -> bool:
        """After each update: ask all ranks, if it is time to."""
        if self.accelerator.num_processes == 1:
            return self.stopping()
        self.updates += 1
        return self.updates >= self.interval and self.ask()

    def ask(self) -> bool:
        """Ask all ranks."""
        if self.accelerator.num_processes == 1:
            return self.stopping()
        own = torch.tensor([float(self.stopping()), time.monotonic() - self.began], device=self.accelerator.device)
        votes, seconds = self.accelerator.reduce(own).tolist()
        # the same on all ranks, since it comes from the same sum
        per_update = seconds / self.accelerator.num_processes / max(self.updates, 1)
        self.interval = max(1, min(100, int(_ASK_AFTER / max(per_update, 1e-3))))
        self.updates, self.began = 0, time.monotonic()
        return bool(votes > 0)


class _Speed:
    """Views per second over all ranks."""

    def __init__(self, world: int) -> None:
        self.world, self.views, self.began = world, 0, time.perf_counter()

    def add(self, batch: Batch) -> None:
        """Count a batch of this rank."""
        self.views += batch.views.shape[0] * batch.views.shape[1] * self.world

    def views_per_second(self) -> float:
        """Since the beginning."""
        return self.views / (time.perf_counter() - self.began)


def _progress_bar(total: int, title: str, accelerator: Accelerator) -> "tqdm[NoReturn]":
    hidden = not accelerator.is_main_process or not sys.stderr.isatty()
    return tqdm(total=total, desc=title, bar_format=BAR, disable=hidden, leave=False, dynamic_ncols=True)
