"""timm's optimizer and scheduler for a task's trainable module."""

import difflib
import logging
from dataclasses import replace
from typing import Any

from timm.optim import create_optimizer_v2, list_optimizers, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from timm.task import TrainingTask
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Recipe

_logger = logging.getLogger(__name__)


def learning_rate(recipe: Recipe, world: int) -> float:
    """``--lr``, or ``--lr-base`` scaled by the images (not views) of one update, by timm's rule."""
    if recipe.lr is not None:
        return recipe.lr
    ratio = recipe.batch_size * world * recipe.grad_accum_steps / recipe.lr_base_size
    adaptive = any(name in recipe.opt.lower() for name in ("ada", "lamb"))
    scaling = recipe.lr_base_scale or ("sqrt" if adaptive else "linear")
    return recipe.lr_base * (ratio**0.5 if scaling == "sqrt" else ratio)


def build_optimizer(task: TrainingTask, recipe: Recipe, world: int) -> Optimizer:
    """The recipe's optimizer; call before the module is wrapped, since timm reads layer names for layer decay.

    Raises:
        UserError: unknown optimizer or arguments that it does not take.
    """
    settings = replace(recipe, lr=learning_rate(recipe, world))
    try:
        return create_optimizer_v2(task.get_trainable_module(), **optimizer_kwargs(settings), **recipe.opt_kwargs)
    except (ValueError, TypeError, AssertionError) as error:
        known = list_optimizers()
        near = difflib.get_close_matches(recipe.opt, known, n=1)
        hint = (
            f"did you mean {near[0]}?" if recipe.opt.lower() not in known and near else "check --opt and --opt-kwargs"
        )
        raise UserError(f"optimizer {recipe.opt}: {one_line(error)}; {hint}") from error


def build_scheduler(optimizer: Optimizer, recipe: Recipe, updates_per_epoch: int) -> tuple[Any, int]:
    """timm's scheduler (None for ``--sched none``) and the number of epochs with warm-up and cool-down.

    The scheduler is a function of epoch or update and is stepped by the engine, never by accelerate, which would step
    it once per rank.

    Raises:
        UserError: unknown scheduler.
    """
    decreasing = recipe.eval_metric == "loss"
    try:
        return create_scheduler_v2(
            optimizer, **scheduler_kwargs(recipe, decreasing_metric=decreasing), updates_per_epoch=updates_per_epoch
        )
    except (ValueError, AssertionError, UnboundLocalError, TypeError) as error:
        raise UserError(f"scheduler {recipe.sched}: {one_line(error)}") from error


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """What a scheduler remembers beyond epoch and update; JSON. Only plateau does: metric, patience and cool-down."""
    inner = getattr(scheduler, "lr_scheduler", None)
    if not isinstance(inner, ReduceLROnPlateau):
        return {}
    plain = {k: v for k, v in inner.state_dict().items() if isinstance(v, int | float | str | bool | list)}
    return {"plateau": plain, "restore_lr": scheduler.restore_lr}


def load_scheduler_state(scheduler: Any, state: dict[str, Any]) -> None:
    """Take what :func:`scheduler_state` gave."""
    if state:
        scheduler.lr_scheduler.load_state_dict(state["plateau"])
        scheduler.restore_lr = state["restore_lr"]
