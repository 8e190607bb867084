"""Memory and operations of one update, from a step of a ghost."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from timm.task import TrainingTask
from timm.utils import dispatch_clip_grad
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from dccd_timm.batch import fold_views
from dccd_timm.engine.optim import build_optimizer
from dccd_timm.models.timm_model import as_timm
from dccd_timm.plan.ghost import alone, ghost_of
from dccd_timm.plan.ledger import ACTIVATIONS, Ledger
from dccd_timm.plan.precision import GpuPrecision
from dccd_timm.recipe import Recipe
from dccd_timm.task.build import teacher_of

WEIGHTS, GRADIENTS, OPTIMIZER, EMA = "weights", "gradients", "optimizer", "EMA"
TEACHER, INPUTS = "teacher", "inputs"
# In the order in which they are shown
PARTS = (WEIGHTS, GRADIENTS, OPTIMIZER, EMA, TEACHER, ACTIVATIONS, INPUTS)


@dataclass(frozen=True)
class Surroundings:
    """Where a step would run: on a GPU or the CPU, on how many of them, in which precision, as accelerate says, and
    whether the next batch is there already."""

    gpu: bool = True
    ranks: int = 1
    mixed_precision: str = "no"
    next_batch: bool = False


def step_memory(
    task: TrainingTask, recipe: Recipe, input_size: tuple[int, int, int], batch_size: int, where: Surroundings
) -> dict[str, int]:
    """Bytes by part at the peak of an update, with ``batch_size`` images [C, H, W] in each of its batches.

    It leaves out what operations need for themselves, and what an allocator cannot use.
    """
    ledger = Ledger(aside=GRADIENTS if where.ranks > 1 else None)  # DDP's buckets hold all gradients, always
    ghost, mode = ghost_of(task, where.mixed_precision != "no")
    with alone(), mode, ledger:
        ledger.assign(WEIGHTS, _tensors(ghost.get_trainable_module()))
        ledger.assign(TEACHER, _tensors(teacher_of(ghost)))
        ledger.assign(EMA, _tensors(ghost.get_trainable_module(ema=True)))
        step = _Step(ghost, recipe, input_size, batch_size, where, ledger)
        step.update()
        ledger.assign(OPTIMIZER, step.optimizer_state())
        ledger.forget_peak()
        step.update()
    found = dict(ledger.peak)
    if where.ranks > 1:
        found[GRADIENTS] = sum(p.numel() * p.element_size() for p in step.parameters)
    return {part: found.get(part, 0) for part in PARTS}


def step_flops(
    task: TrainingTask, recipe: Recipe, input_size: tuple[int, int, int], batch_size: int, where: Surroundings
) -> int:
    """Floating-point operations of one batch forward and backward, the teacher's forward included."""
    ledger = Ledger()
    ghost, mode = ghost_of(task, where.mixed_precision != "no")
    with alone(), mode, ledger:
        step = _Step(ghost, recipe, input_size, batch_size, where, ledger)
        with FlopCounterMode(display=False) as counter:
            step.batch()
    flops: int = counter.get_total_flops()
    return flops


class _Step:
    """An update of a ghost, as engine/step.py makes it."""

    def __init__(
        self, task: TrainingTask, recipe: Recipe, input_size: tuple[int, int, int], batch_size: int,
        where: Surroundings, ledger: Ledger,
    ) -> None:  # fmt: skip
        self.task, self.recipe, self.where, self.ledger = task.train(), recipe, where, ledger
        trainable = task.get_trainable_module()
        assert trainable is not None
        self.parameters = [p for p in trainable.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._name_gradient)
        self.optimizer = build_optimizer(task, recipe, batch_size * where.ranks)
        if where.gpu:
            _like_on_gpu(self.optimizer)
        self.views = torch.empty(batch_size, recipe.dccd_views, *input_size)
        self.target = torch.zeros(batch_size, dtype=torch.long)
        if recipe.mixes:
            student = task.get_eval_model()
            assert student is not None
            self.target = torch.zeros(batch_size, as_timm(student).num_classes)
        ledger.assign(INPUTS, (self.views, self.target))
        if where.next_batch:
            self.following = torch.empty_like(self.views)
            ledger.assign(INPUTS, (self.following,))

    def update(self) -> None:
        """Accumulate, step and average; more than two batches of an accumulation need no more than two."""
        for _ in range(min(self.recipe.grad_accum_steps, 2)):
            self.batch()
        if self.recipe.clip_grad is not None:
            parameters = self.task.get_clip_parameters(exclude_head=self.recipe.clip_mode == "agc")
            dispatch_clip_grad(parameters, self.recipe.clip_grad, mode=self.recipe.clip_mode)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.update_ema(step=1)

    def batch(self) -> None:
        """Forward and backward of one batch."""
        images, target = fold_views(self.views, self.target)
        if self.recipe.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        self.ledger.assign(INPUTS, (images, target))
        lower = self.where.mixed_precision != "no"
        on_gpu = GpuPrecision() if self.where.gpu and lower else nullcontext()
        with torch.autocast("cpu", torch.bfloat16, enabled=lower), on_gpu:
            result = self.task(images, target)
        loss = result["loss"] / self.recipe.grad_accum_steps
        loss.backward(create_graph=getattr(self.optimizer, "is_second_order", False))

    def optimizer_state(self) -> Iterator[Tensor]:
        """All tensors that the optimizer keeps."""
        for state in self.optimizer.state.values():
            yield from (value for value in tree_iter(state) if isinstance(value, Tensor))

    def _name_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.ledger.assign(GRADIENTS, (parameter.grad,))


def _tensors(module: nn.Module | None) -> Iterator[Tensor]:
    if module is not None:
        yield from module.parameters()
        yield from module.buffers()


def _like_on_gpu(optimizer: Optimizer) -> None:
    """Update all weights together where torch does so on GPUs: it takes copies of them."""
    for group in optimizer.param_groups:
        if "foreach" in group and group["foreach"] is None and not group.get("fused"):
            group["foreach"] = True
