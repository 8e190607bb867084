"""Autocast as GPUs have it, on the CPU: other operations than there stay in float32."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

# Of torch's list for CUDA those that networks use, and that the list for CPUs has not
_FLOAT32 = {
    F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm, F.softmax, torch.softmax, Tensor.softmax,
    F.log_softmax, torch.log_softmax, Tensor.log_softmax, F.softplus, torch.exp, Tensor.exp, torch.pow, Tensor.pow,
    torch.rsqrt, Tensor.rsqrt,
}  # fmt: skip


class GpuPrecision(TorchFunctionMode):
    """Under autocast, computes in float32 what it does on a GPU; to be entered inside ``torch.autocast("cpu")``."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call ``func``, with arguments of lower precision turned to float32 where it is one of those."""
        if func in _FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tree_map(_float32, args)
        return func(*args, **(kwargs or {}))


def _float32(value: object) -> object:
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    return value
