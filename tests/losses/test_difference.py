"""Dynamic difference: against float64 NumPy, and what it promises whatever its formula."""

import jaxtyping
import numpy as np
import pytest
import torch

from dccd_timm import DynamicDifferenceLoss
from tests.losses import reference


@pytest.mark.parametrize("form", ["kl", "mse"])
@pytest.mark.parametrize(("views", "pair"), [(2, (0, 1)), (3, (0, 2)), (3, (2, 1))])
def test_difference(views, pair, form):
    rng = np.random.default_rng(1)
    student, teacher = (rng.normal(0, 3, (views * 4, 7)) for _ in range(2))
    loss = DynamicDifferenceLoss(temperature=2.0, views=views, form=form, pair=pair)
    reference.check(loss, lambda s: reference.difference(s, teacher, views, pair, 2.0, form), student, teacher)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_inputs_are_computed_in_float32(autocast):
    rng = np.random.default_rng(3)
    logits = [torch.tensor(rng.normal(0, 3, (8, 10))).bfloat16() for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = DynamicDifferenceLoss(4.0)(*logits)
    exact = reference.difference(*(x.double().numpy() for x in logits), 2, (0, 1), 4.0, "kl")
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("form", ["kl", "mse"])
def test_difference_is_zero_for_equal_views(form):
    student, teacher = torch.randn(5, 8), torch.randn(5, 8)
    assert DynamicDifferenceLoss(form=form)(student.repeat(2, 1), teacher.repeat(2, 1)).item() == pytest.approx(0)


@pytest.mark.parametrize("form", ["kl", "mse"])
def test_difference_ignores_an_offset_of_each_sample(form):
    student, teacher, offset = torch.randn(10, 8), torch.randn(10, 8), 10 * torch.randn(10, 1)
    loss = DynamicDifferenceLoss(form=form)
    assert loss(student + offset, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-4)
    assert loss(student, teacher).item() > 1e-3


@pytest.mark.parametrize("form", ["kl", "mse"])
def test_difference_does_not_care_which_view_comes_first(form):
    student, teacher = torch.randn(10, 8), torch.randn(10, 8)
    there, back = (DynamicDifferenceLoss(form=form, pair=pair)(student, teacher) for pair in ((0, 1), (1, 0)))
    assert there.item() == pytest.approx(back.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DynamicDifferenceLoss(views=1), "at least 2 views"),
        (lambda: DynamicDifferenceLoss(pair=(0, 2)), "below 2"),
        (lambda: DynamicDifferenceLoss()(torch.randn(5, 3), torch.randn(5, 3)), r"\[2 \* B, K\]"),
    ],
)
def test_misuse_says_what_is_wrong(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for a user, who has no type checker
    with pytest.raises(ValueError, match=message):
        call()
