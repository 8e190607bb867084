"""Losses and gradients against float64 NumPy."""

import numpy as np
import pytest
import torch

from dccd_timm import ChannelContrastiveLoss, DynamicDifferenceLoss
from dccd_timm.losses import distillation_loss
from tests.losses import reference

SHAPES = {
    "maps": ((4, 5, 3, 3), (4, 5, 3, 3)),
    "student grid larger": ((3, 4, 6, 5), (3, 4, 2, 3)),
    "teacher grid larger, not divisible": ((3, 4, 3, 2), (3, 4, 7, 5)),
    "each larger on one axis": ((2, 3, 5, 2), (2, 3, 3, 4)),
    "features": ((12, 6), (12, 6)),
    "many channels, few samples": ((5, 9), (5, 9)),
}


def check(loss, function, student, teacher):
    """Value and student gradient of ``loss`` equal those of the NumPy ``function``."""
    x = torch.tensor(student, dtype=torch.float32, requires_grad=True)
    value = loss(x, torch.tensor(teacher, dtype=torch.float32))
    value.backward()
    assert value.dtype == torch.float32
    np.testing.assert_allclose(value.item(), function(student), rtol=2e-5, atol=1e-6)
    wanted = reference.gradient(function, student)
    assert np.abs(wanted).max() > 1e-4
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-3, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("negatives", ["teacher", "student"])
@pytest.mark.parametrize("direction", ["symmetric", "student"])
@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_contrast(shapes, targets, direction, negatives):
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(0.7, 2.0, shape) for shape in shapes)
    loss = ChannelContrastiveLoss(temperature=0.3, targets=targets, direction=direction, negatives=negatives)
    check(loss, lambda s: reference.contrast(s, teacher, 0.3, targets, direction, negatives), student, teacher)


@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize(("views", "pair"), [(2, (0, 1)), (3, (0, 2)), (3, (2, 1))])
def test_difference(views, pair, form):
    rng = np.random.default_rng(1)
    student, teacher = (rng.normal(0, 3, (views * 4, 7)) for _ in range(2))
    loss = DynamicDifferenceLoss(temperature=2.0, views=views, form=form, pair=pair)
    check(loss, lambda s: reference.difference(s, teacher, views, pair, 2.0, form), student, teacher)


def test_kd():
    rng = np.random.default_rng(2)
    student, teacher = (rng.normal(0, 3, (6, 5)) for _ in range(2))
    check(lambda s, t: distillation_loss(s, t, 4.0), lambda s: reference.kd(s, teacher, 4.0), student, teacher)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_inputs_are_computed_in_float32(autocast):
    rng = np.random.default_rng(3)
    maps = [torch.tensor(rng.normal(5, 1, (8, 6, 4, 4))).bfloat16() for _ in range(2)]
    logits = [torch.tensor(rng.normal(0, 3, (8, 10))).bfloat16() for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        values = [
            ChannelContrastiveLoss(0.1)(*maps),
            DynamicDifferenceLoss(4.0)(*logits),
            distillation_loss(*logits, 4.0),
        ]
    as_float64 = [[x.double().numpy() for x in pair] for pair in (maps, logits)]
    wanted = [
        reference.contrast(*as_float64[0], 0.1),
        reference.difference(*as_float64[1], 2, (0, 1), 4.0, "kl"),
        reference.kd(*as_float64[1], 4.0),
    ]
    for value, exact in zip(values, wanted, strict=True):
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact, rel=1e-5)


def test_channels_with_a_large_mean_keep_their_variance():
    rng = np.random.default_rng(4)
    student, teacher = (rng.normal(0, 1, (64, 5)) + 3000 * rng.normal(0, 1, 5) for _ in range(2))
    value = ChannelContrastiveLoss(0.1)(torch.tensor(student).float(), torch.tensor(teacher).float())
    exact = reference.contrast(student.astype(np.float32).astype(float), teacher.astype(np.float32).astype(float), 0.1)
    assert value.item() == pytest.approx(exact, rel=1e-3)
