"""What the terms promise, whatever their formulas."""

import pytest
import torch

from dccd_timm import ChannelContrastiveLoss, DynamicDifferenceLoss


def uncorrelated(samples, channels, seed=0):
    """Features [N, C] whose channels are centred, of unit variance and exactly uncorrelated."""
    x = torch.randn(samples, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q
    return (x * samples**0.5).float()


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


def test_contrast_is_smallest_for_the_teachers_own_channels():
    teacher = uncorrelated(200, 8)
    loss = ChannelContrastiveLoss(0.1)
    best = loss(teacher, teacher).item()
    generator = torch.Generator().manual_seed(1)
    for size in (0.1, 0.5, 2.0):
        noise = size * torch.randn(200, 8, generator=generator)
        assert loss(teacher + noise, teacher).item() > best
    assert loss(teacher.roll(1, dims=1), teacher).item() > best
    x = teacher.clone().requires_grad_()
    loss(x, teacher).backward()
    assert x.grad.norm() < 1e-4  # a stationary point


def test_contrast_grows_when_two_student_channels_are_copies():
    teacher = uncorrelated(200, 8)
    copied = teacher.clone()
    copied[:, 3] = copied[:, 5]
    loss = ChannelContrastiveLoss(0.1)
    assert loss(copied, teacher).item() > loss(teacher, teacher).item() + 0.5


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_contrast_ignores_a_common_permutation_scale_and_offset(targets):
    student, teacher = torch.randn(30, 6, 3, 3), torch.randn(30, 6, 3, 3)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    loss = ChannelContrastiveLoss(0.2, targets=targets)
    value = loss(student, teacher).item()
    assert loss(student[:, order], teacher[:, order]).item() == pytest.approx(value, rel=1e-5)
    assert loss(student[:, order], teacher).item() != pytest.approx(value, rel=1e-3)
    scale, offset = torch.rand(6, 1, 1) + 0.1, torch.randn(6, 1, 1)
    assert loss(student * scale + offset, teacher).item() == pytest.approx(value, rel=1e-4)


def test_soft_targets_forgive_channels_that_are_alike_in_the_teacher():
    teacher = uncorrelated(200, 8)
    teacher[:, 3] = teacher[:, 5]
    hard, soft = (ChannelContrastiveLoss(0.1, targets=t) for t in ("hard", "soft"))
    swapped = teacher[:, [0, 1, 2, 5, 4, 3, 6, 7]]
    x = teacher.clone().requires_grad_()
    soft(x, teacher).backward()
    assert x.grad.norm() < 1e-4
    # float32: the loss is a small difference of logits of up to 10
    assert soft(swapped, teacher).item() == pytest.approx(soft(teacher, teacher).item(), abs=1e-5)
    # hard targets call each of the two a negative of the other, which the perfect student has to pay for
    unlike = uncorrelated(200, 8)
    assert hard(teacher, teacher).item() > hard(unlike, unlike).item() + 0.1


@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("dead", ["student", "teacher", "both", "all"])
def test_constant_channels_give_no_nan_and_no_gradient(dead, targets):
    student, teacher = torch.randn(20, 5), torch.randn(20, 5)
    if dead in ("student", "both"):
        student[:, 2] = 7.0
    if dead in ("teacher", "both"):
        teacher[:, 2] = 0.0
    if dead == "all":
        student[:], teacher[:] = 1.0, 2.0
    student.requires_grad_()
    value = ChannelContrastiveLoss(0.1, targets=targets)(student, teacher)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()
    if dead != "teacher":
        assert (student.grad[:, 2] == 0).all()
    if dead == "teacher":  # as if the channel were not there
        keep = [0, 1, 3, 4]
        rest = ChannelContrastiveLoss(0.1, targets=targets)(student[:, keep], teacher[:, keep])
        assert value.item() == pytest.approx(rest.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ChannelContrastiveLoss()(torch.randn(4, 3), torch.randn(4, 5)), "one N and C"),
        (lambda: ChannelContrastiveLoss()(torch.randn(4, 3), torch.randn(4, 3, 2, 2)), "one N and C"),
        (lambda: ChannelContrastiveLoss(targets="medium"), "medium"),
        (lambda: DynamicDifferenceLoss(views=1), "at least 2 views"),
        (lambda: DynamicDifferenceLoss(pair=(0, 2)), "below 2"),
        (lambda: DynamicDifferenceLoss()(torch.randn(5, 3), torch.randn(5, 3)), r"\[2 \* B, K\]"),
    ],
)
def test_misuse_says_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()
