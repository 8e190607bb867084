"""timm's optimizer and scheduler for a task's trainable module."""

import difflib
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, optimizer_kwargs
from timm.scheduler import PlateauLRScheduler, create_scheduler_v2, scheduler_kwargs
from timm.scheduler.scheduler import Scheduler
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import nn
from torch.optim import SGD, Optimizer

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Optim, Recipe

_logger = logging.getLogger(__name__)

# timm has no list of them.
_SCHEDULERS = ("cosine", "tanh", "step", "constant", "multistep", "poly", "plateau", "wsd", "rsqrt", "none")


def learning_rate(optim: Optim, images: int) -> float:
    """``--lr``, or ``--lr-base`` scaled by the images (not views) of one update, by timm's rule.

    ``images`` are those of one batch over all ranks.
    """
    if optim.lr is not None:
        return optim.lr
    ratio = images * optim.grad_accum_steps / optim.lr_base_size
    adaptive = any(name in optim.opt.lower() for name in ("ada", "lamb"))
    scaling = optim.lr_base_scale or ("sqrt" if adaptive else "linear")
    return optim.lr_base * (ratio**0.5 if scaling == "sqrt" else ratio)


def build_optimizer(task: TrainingTask, optim: Optim, images: int) -> Optimizer:
    """The optimizer for batches of ``images`` over all ranks.

    Call before the module is wrapped, since timm reads layer names for layer decay.

    Raises:
        UserError: unknown optimizer or arguments that it does not take.
    """
    trainable = task.get_trainable_module()
    assert trainable is not None
    if "kron" in optim.opt.lower() and not torch.backends.opt_einsum.is_available():
        _logger.warning(
            "--opt %s takes gigabytes for one convolution without its package: pip install opt_einsum", optim.opt
        )
    return _create_optimizer(trainable, optim, images)


def _create_optimizer(module: nn.Module, optim: Optim, images: int) -> Optimizer:
    settings = replace(optim, lr=learning_rate(optim, images))
    try:
        return create_optimizer_v2(module, **optimizer_kwargs(settings), **optim.opt_kwargs)
    except (ValueError, TypeError, AssertionError) as error:
        known = list_optimizers()
        near = difflib.get_close_matches(optim.opt, known, n=1)
        hint = f"did you mean {near[0]}?" if optim.opt.lower() not in known and near else "check --opt and --opt-kwargs"
        raise UserError(f"optimizer {optim.opt}: {one_line(error)}; {hint}") from error


Groups = list[dict[str, Any]]  # hyperparameters of an optimizer's parameter groups


def initial_groups(task: TrainingTask, optim: Optim, images: int) -> Groups:
    """The hyperparameters that a new optimizer for batches of ``images`` would have, with the number of parameters of
    each group; the task may be wrapped."""
    optimizer = _create_optimizer(unwrap_model(task.get_trainable_module()), optim, images)
    return [{**group, "params": len(group["params"])} for group in optimizer.param_groups]


def change_groups(optimizer: Optimizer, before: Groups, after: Groups, scheduled: bool) -> None:
    """Give an optimizer whose state was loaded the hyperparameters that differ between two new optimizers.

    A rate that a schedule with a memory (plateau) has lowered is lowered by as much ``after``.
    """
    for group, old, new in zip(optimizer.param_groups, before, after, strict=True):
        for name, value in new.items():
            if name not in ("params", "lr") and (name not in old or old[name] != value):
                group[name] = value
        if "initial_lr" in group:
            group["initial_lr"] = new["lr"]
        same = not scheduled or group["lr"] == old["lr"] or not old["lr"]
        scale = 1.0 if scheduled else new.get("lr_scale", 1.0)
        group["lr"] = new["lr"] * scale if same else group["lr"] * (new["lr"] / old["lr"])


@dataclass(frozen=True)
class Schedule:
    """A learning rate schedule.

    It is a function of epoch or update that the engine steps; accelerate would step it once per rank.

    Args:
        scheduler: timm's; None keeps the rate.
        num_epochs: the training's length, warm-up and cool-down included.
        on_updates: the rate changes at each update, not at each epoch.
    """

    scheduler: Scheduler | None
    num_epochs: int
    on_updates: bool = False

    def resume(self, epoch: int, updates: int) -> None:
        """Set the rate of a training that continues in ``epoch`` after ``updates``."""
        if self.scheduler is None or updates == 0:
            return
        if self.on_updates:
            self.scheduler.step_update(updates)
        else:
            self.scheduler.step(epoch)

    def end_update(self, updates: int) -> None:
        """Set the rate after so many ``updates``."""
        if self.scheduler is not None:
            self.scheduler.step_update(num_updates=updates)

    def end_epoch(self, epoch: int, metric: float | None) -> None:
        """Set the rate of the epoch after ``epoch``; ``metric`` is its --eval-metric, if it was validated."""
        if self.scheduler is not None:
            self.scheduler.step(epoch + 1, metric)

    def state(self) -> dict[str, object]:
        """What the schedule remembers beyond epoch and update; JSON. Only plateau does: metric, patience, cool-down."""
        if not isinstance(self.scheduler, PlateauLRScheduler):
            return {}
        values = self.scheduler.lr_scheduler.state_dict().items()
        plain = {k: v for k, v in values if isinstance(v, int | float | str | bool | list)}
        return {"plateau": plain, "restore_lr": self.scheduler.restore_lr}

    def load_state(self, state: dict[str, Any], same_metric: bool = True) -> None:
        """Take what :meth:`state` gave, but the settings; the metrics so far only if they are the ``same_metric``.

        The optimizer gets the rates without the noise of their epoch: :meth:`resume` adds it again.
        """
        if not state or not isinstance(self.scheduler, PlateauLRScheduler):
            return
        plateau = self.scheduler.lr_scheduler
        if same_metric and state["plateau"]["mode"] == plateau.mode:
            memory = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
            plateau.load_state_dict({name: value for name, value in state["plateau"].items() if name in memory})
        for group, rate in zip(self.scheduler.optimizer.param_groups, state["restore_lr"] or (), strict=False):
            group["lr"] = rate


def build_schedule(optimizer: Optimizer, recipe: Recipe, updates_per_epoch: int) -> Schedule:
    """The recipe's learning rate schedule.

    Layer decay is part of timm's schedulers: without one its factors are applied here, once.

    Raises:
        UserError: unknown scheduler.
    """
    options = scheduler_kwargs(recipe, decreasing_metric=recipe.lower_is_better)
    try:
        scheduler, num_epochs = create_scheduler_v2(optimizer, **options, updates_per_epoch=updates_per_epoch)
    except (ValueError, AssertionError, UnboundLocalError, TypeError) as error:
        names = f"; there are {', '.join(_SCHEDULERS)}" if recipe.sched not in _SCHEDULERS else ""
        raise UserError(f"scheduler {recipe.sched}: {one_line(error).rstrip('.')}{names}") from error
    if scheduler is None:
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
    return Schedule(scheduler, num_epochs, recipe.sched_on_updates)


def num_epochs(recipe: Recipe) -> int:
    """The length of a training, warm-up and cool-down included."""
    return build_schedule(SGD([torch.zeros(1)], lr=0.1), recipe, updates_per_epoch=100).num_epochs


def mean_learning_rate(optimizer: Optimizer) -> float:
    """Mean learning rate over parameter groups, as timm's summary.csv has it."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return sum(rates) / len(rates)
