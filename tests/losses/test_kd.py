"""Knowledge distillation against float64 NumPy."""

import numpy as np
import pytest
import torch

from dccd_timm.losses import distillation_loss
from tests.losses import reference


def test_kd():
    rng = np.random.default_rng(2)
    student, teacher = (rng.normal(0, 3, (6, 5)) for _ in range(2))
    reference.check(
        lambda s, t: distillation_loss(s, t, 4.0), lambda s: reference.kd(s, teacher, 4.0), student, teacher
    )


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_inputs_are_computed_in_float32(autocast):
    rng = np.random.default_rng(3)
    logits = [torch.tensor(rng.normal(0, 3, (8, 10))).bfloat16() for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = distillation_loss(*logits, 4.0)
    exact = reference.kd(*(x.double().numpy() for x in logits), 4.0)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-5)
