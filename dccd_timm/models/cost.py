"""What a network costs: multiply-accumulates, counted by torch; and whether it takes images of a size at all."""

import copy
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dccd_timm.errors import UserError, one_line


@torch.no_grad()
def gmacs(model: nn.Module, input_size: tuple[int, ...]) -> float | None:
    """Billions of multiply-accumulates for one image [C, H, W] in eval mode; None where they cannot be counted.

    torch counts them on the meta device: nothing is computed.
    """
    try:
        # a parameter that is a block's input, as CaiT's class token, breaks torch's counter when it wants a gradient
        ghost = copy.deepcopy(model).to("meta", torch.float32).eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            ghost(torch.zeros(1, *input_size, device="meta"))
    except Exception:  # a figure to show, which ends no run, whatever a network or torch's counter cannot do
        return None
    flops: int = counter.get_total_flops()
    return flops / 2e9


@torch.no_grad()
def check_input_size(model: nn.Module, name: str, input_size: tuple[int, ...]) -> None:
    """Run a network that is on the CPU on one empty image [C, H, W], where torch cannot count its operations.

    Raises:
        UserError: when it does not take images of this size.
    """
    if gmacs(model, input_size) is not None:
        return
    training = model.training
    try:
        model.eval()(torch.zeros(1, *input_size))
    except Exception as error:  # whatever its code does with its arguments and such an image
        size = "x".join(map(str, input_size))
        if not isinstance(error, AssertionError | RuntimeError | ValueError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            raise UserError(
                f"{name} fails on an image of {size} ({type(error).__name__} in {where}: {one_line(error)}): check its"
                " --model-kwargs, or its own code"
            ) from error
        where = traceback.extract_tb(error.__traceback__)[-2:][0].name if not str(error) else ""
        reason = one_line(error) if str(error) else f"{type(error).__name__} in its {where}()"
        raise UserError(f"{name} does not take images of {size} ({reason}): choose another --img-size") from error
    finally:
        model.train(training)
