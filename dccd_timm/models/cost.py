"""What a network costs: multiply-accumulates, counted by torch."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def gmacs(model: nn.Module, input_size: tuple[int, ...]) -> float | None:
    """Billions of multiply-accumulates for one image [C, H, W] in eval mode; None where they cannot be counted.

    torch counts them on the meta device: nothing is computed.
    """
    try:
        ghost = copy.deepcopy(model).to("meta").eval()
        with FlopCounterMode(display=False) as counter:
            ghost(torch.zeros(1, *input_size, device="meta"))
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        return None
    flops: int = counter.get_total_flops()
    return flops / 2e9
