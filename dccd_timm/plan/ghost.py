"""A task whose networks have shapes and no numbers: a step of it takes seconds on a CPU, whatever its size."""

import contextlib
import copy
from collections.abc import Iterator

import torch
import torch.distributed as dist
from accelerate.utils import convert_outputs_to_fp32
from timm.task import TrainingTask
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dccd_timm.task.contract import plain_copy


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In the block this process trains alone, whatever ranks there are, and nothing is compiled."""
    group = dist.GroupMember.WORLD if dist.is_available() else None
    if group is not None:
        dist.GroupMember.WORLD = None
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if group is not None:
            dist.GroupMember.WORLD = group


def ghost_of(task: TrainingTask, lower_precision: bool) -> tuple[TrainingTask, FakeTensorMode]:
    """A copy of ``task`` with fake tensors on the CPU, wherever it is, without DDP and compiler; and where it runs.

    With ``lower_precision`` what the student gives is turned back to float32, as accelerate does it.
    """
    mode, memo = FakeTensorMode(allow_non_fake_inputs=True), dict[int, object]()
    with mode:
        for tensor in (*task.parameters(), *task.buffers()):
            memo.setdefault(id(tensor), _fake(tensor))
    for child in task.children():
        if not isinstance(child, ModelEmaV3):
            memo[id(child)] = plain_copy(child, memo)
    ghost = copy.deepcopy(task, memo)
    if lower_precision:
        trainable = ghost.get_trainable_module()
        assert trainable is not None
        trainable.forward = convert_outputs_to_fp32(trainable.forward)
    return ghost, mode


def _fake(tensor: Tensor) -> Tensor:
    """Its shape, strides and type, on the CPU: a fake GPU has no backward where there is no real one."""
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    if isinstance(tensor, nn.Parameter):
        fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake
