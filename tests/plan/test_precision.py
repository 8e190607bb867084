"""Autocast on the CPU with the list of GPUs."""

import torch
from torch.nn import functional as F

from dccd_timm.plan.precision import GpuPrecision

LOW = torch.randn(4, 8, dtype=torch.bfloat16)


def test_norms_and_softmax_give_float32_under_autocast_alone():
    for compute in (
        lambda x: F.layer_norm(x, (8,)),
        lambda x: F.softmax(x, -1),
        lambda x: x.log_softmax(-1),
        torch.exp,
    ):
        with GpuPrecision():
            assert compute(LOW).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16), GpuPrecision():
            assert compute(LOW).dtype == torch.float32


def test_products_stay_in_lower_precision():
    with torch.autocast("cpu", torch.bfloat16), GpuPrecision():
        assert F.linear(torch.randn(2, 8), torch.randn(3, 8)).dtype == torch.bfloat16
        assert F.relu(LOW).dtype == torch.bfloat16
