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
        # a parameter that is a block's input, as CaiT's class token, breaks torch's counter when it wants a gradient
        ghost = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            ghost(torch.zeros(1, *input_size, device="meta"))
    except Exception:  # a figure to show, which ends no run, whatever a network or torch's counter cannot do
        return None
    flops: int = counter.get_total_flops()
    return flops / 2e9
