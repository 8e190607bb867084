"""Losses between feature maps against float64 NumPy."""

import numpy as np
import pytest
import torch

from dccd_timm.losses import at, fitnet, rkd, sp, wkd
from tests.losses import reference

SAME = ((4, 3, 4, 4), (4, 3, 4, 4))
OTHER_GRID = ((4, 3, 5, 4), (4, 3, 3, 6))
OTHER_WIDTH = ((4, 3, 4, 4), (4, 5, 4, 4))
CASES = {
    "fitnet": (fitnet, reference.fitnet, SAME),
    "fitnet grids": (fitnet, reference.fitnet, OTHER_GRID),
    "at": (at, reference.at, OTHER_WIDTH),
    "at grids": (at, reference.at, OTHER_GRID),
    "sp": (sp, reference.sp, OTHER_WIDTH),
    "rkd": (rkd, lambda s, t: reference.rkd(s, t, 25, 50), OTHER_WIDTH),
    "rkd pooled": (rkd, lambda s, t: reference.rkd(s, t, 25, 50), ((5, 3), (5, 4))),
    "wkd": (wkd, lambda s, t: reference.wkd(s, t, 2, 1), SAME),
    "wkd cells": (lambda s, t: wkd(s, t, 4.0, grid=2), lambda s, t: reference.wkd(s, t, 4, 2), SAME),
    "wkd ragged": (
        lambda s, t: wkd(s, t, grid=2),
        lambda s, t: reference.wkd(s, t, 2, 2),
        ((4, 3, 5, 3), (4, 3, 5, 3)),
    ),
}


def maps(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0.3, 1, shape) for shape in shapes)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case):
    loss, formula, shapes = CASES[case]
    student, teacher = maps(shapes)
    reference.check(loss, lambda s: formula(s, teacher), student, teacher)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_inputs_are_computed_in_float32(case):
    loss, formula, shapes = CASES[case]
    halves = [torch.tensor(f).bfloat16() for f in maps(shapes)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(*halves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(formula(*(f.double().numpy() for f in halves)), rel=1e-3)


@pytest.mark.parametrize("loss", [fitnet, at, sp, rkd, wkd])
def test_equal_and_constant_maps_give_zero_and_finite_gradients(loss):
    features = torch.randn(4, 3, 4, 4, requires_grad=True)
    value = loss(features, features.detach())
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert features.grad.isfinite().all()
    flat = torch.zeros(4, 3, 4, 4, requires_grad=True)
    loss(flat, features.detach()).backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("loss", [fitnet, wkd])
def test_other_channels_are_refused(loss):
    with pytest.raises(ValueError, match="share N and C"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


def test_cells_of_one_position_are_refused():
    with pytest.raises(ValueError, match="smaller grid"):
        wkd(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), grid=2)


def test_rkd_takes_the_first_samples():
    student, teacher = (torch.tensor(f) for f in maps(((9, 3), (9, 4))))
    torch.testing.assert_close(rkd(student, teacher, max_samples=5), rkd(student[:5], teacher[:5]))
