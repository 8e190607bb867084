"""One training step: forward, backward and, once enough batches are accumulated, one update of the weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.task import TrainingTask
from timm.utils import dispatch_clip_grad
from torch import Tensor

from dccd_timm.batch import Batch, fold_views
from dccd_timm.engine.statistics import unmoved_statistics
from dccd_timm.recipe import Recipe


def training_step(
    task: TrainingTask,
    batch: Batch,
    optimizer: AcceleratedOptimizer,
    recipe: Recipe,
    accelerator: Accelerator,
    may_update: Callable[[], bool],
) -> tuple[dict[str, Tensor], bool]:
    """Train on one batch; the weights change when an accumulation is complete and ``may_update`` allows it.

    Returns:
        What the task gave, and whether weights changed.
    """
    images, target = fold_views(batch.views, batch.target)
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with accelerator.accumulate(task.get_trainable_module()):
        with accelerator.autocast():
            result = task(images, target)
        with _backward_context(task, recipe):
            accelerator.backward(result["loss"], **_backward_options(optimizer))
        updates = accelerator.sync_gradients and may_update()
        if updates:
            _clip_gradients(task, optimizer, recipe, accelerator)
            optimizer.step()
        optimizer.zero_grad()
    return result, updates and not optimizer.step_was_skipped


def _backward_context(task: TrainingTask, recipe: Recipe) -> AbstractContextManager[None]:
    """With --grad-checkpointing the backward repeats forwards, which must not move BatchNorm's statistics again."""
    trainable = task.get_trainable_module()
    if not recipe.grad_checkpointing or trainable is None:
        return nullcontext()
    return unmoved_statistics(trainable)


def _backward_options(optimizer: AcceleratedOptimizer) -> dict[str, Any]:
    """Second-order optimizers (adahessian) differentiate the gradient once more."""
    return {"create_graph": True} if getattr(optimizer.optimizer, "is_second_order", False) else {}


def _clip_gradients(
    task: TrainingTask, optimizer: AcceleratedOptimizer, recipe: Recipe, accelerator: Accelerator
) -> None:
    if recipe.clip_grad is None:
        return
    accelerator.unscale_gradients(optimizer)
    parameters = task.get_clip_parameters(exclude_head=recipe.clip_mode == "agc")
    dispatch_clip_grad(parameters, recipe.clip_grad, mode=recipe.clip_mode)
