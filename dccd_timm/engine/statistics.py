"""BatchNorm's running statistics: each batch moves them once, and what is evaluated has the same ones on all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

_NAMES = ("running_mean", "running_var", "num_batches_tracked")


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of ``module`` that a forward in training mode changes, by name."""
    return {name: buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] in _NAMES}


@torch.no_grad()
def share_statistics(module: nn.Module, accelerator: Accelerator, mean: bool) -> None:
    """Give all ranks the mean of their running statistics, or those of rank 0; ``module`` may be on any device."""
    for statistic in running_statistics(module).values():
        if statistic.is_floating_point():  # the others count batches, which all ranks have alike
            own = statistic.to(accelerator.device, copy=True)
            statistic.copy_(accelerator.reduce(own, "mean") if mean else broadcast(own))


@contextmanager
def unmoved_statistics(module: nn.Module) -> Iterator[None]:
    """Undo what the block does to the running statistics of ``module``.

    A backward with gradient checkpointing repeats forwards, which would count the same batch twice.
    """
    statistics = running_statistics(module)
    before = {name: statistic.clone() for name, statistic in statistics.items()}
    yield
    with torch.no_grad():
        for name, statistic in statistics.items():
            statistic.copy_(before[name])
