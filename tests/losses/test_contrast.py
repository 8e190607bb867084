"""Channel contrast: against float64 NumPy, and what it promises whatever its formula."""

import jaxtyping
import numpy as np
import pytest
import torch

from dccd_timm import ChannelContrastiveLoss
from dccd_timm.losses import contrast
from tests.losses import reference

SHAPES = {
    "maps": ((4, 5, 3, 3), (4, 5, 3, 3)),
    "student grid larger": ((3, 4, 6, 5), (3, 4, 2, 3)),
    "teacher grid larger, not divisible": ((3, 4, 3, 2), (3, 4, 7, 5)),
    "each larger on one axis": ((2, 3, 5, 2), (2, 3, 3, 4)),
    "features": ((12, 6), (12, 6)),
    "many channels, few samples": ((5, 9), (5, 9)),
}


@pytest.mark.parametrize("negatives", ["teacher", "student"])
@pytest.mark.parametrize("direction", ["symmetric", "student"])
@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_contrast(shapes, targets, direction, negatives):
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(0.7, 2.0, shape) for shape in shapes)
    loss = ChannelContrastiveLoss(temperature=0.3, targets=targets, direction=direction, negatives=negatives)
    reference.check(
        loss, lambda s: reference.contrast(s, teacher, 0.3, targets, direction, negatives), student, teacher
    )


@pytest.mark.parametrize("targets", ["hard", "soft"])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_inputs_are_computed_in_float32(autocast, targets):
    rng = np.random.default_rng(3)
    maps = [torch.tensor(rng.normal(5, 1, (8, 6, 4, 4))).bfloat16() for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = ChannelContrastiveLoss(0.1, targets=targets)(*maps)
    exact = reference.contrast(*(x.double().numpy() for x in maps), 0.1, targets)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_channels_with_a_large_mean_keep_their_variance(targets):
    rng = np.random.default_rng(4)
    student, teacher = (rng.normal(0, 1, (64, 5)) + 3000 * rng.normal(0, 1, 5) for _ in range(2))
    loss = ChannelContrastiveLoss(0.1, targets=targets)
    value = loss(torch.tensor(student).float(), torch.tensor(teacher).float())
    exact = reference.contrast(
        student.astype(np.float32).astype(float), teacher.astype(np.float32).astype(float), 0.1, targets
    )
    assert value.item() == pytest.approx(exact, rel=1e-3)


def uncorrelated(samples, channels, seed=0):
    """Features [N, C] whose channels are centred, of unit variance and exactly uncorrelated."""
    x = torch.randn(samples, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(0)).Q
    return (x * samples**0.5).float()


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_contrast_is_smallest_for_the_teachers_own_channels(targets):
    teacher = uncorrelated(200, 8)
    loss = ChannelContrastiveLoss(0.1, targets=targets)
    best = loss(teacher, teacher).item()
    generator = torch.Generator().manual_seed(1)
    for size in (0.1, 0.5, 2.0):
        noise = size * torch.randn(200, 8, generator=generator)
        assert loss(teacher + noise, teacher).item() > best
    assert loss(teacher.roll(1, dims=1), teacher).item() > best
    x = teacher.clone().requires_grad_()
    loss(x, teacher).backward()
    assert x.grad.norm() < 1e-4  # a stationary point


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_contrast_grows_when_two_student_channels_are_copies(targets):
    teacher = uncorrelated(200, 8)
    copied = teacher.clone()
    copied[:, 3] = copied[:, 5]
    loss = ChannelContrastiveLoss(0.1, targets=targets)
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
    ("call", "message"),
    [
        (lambda: ChannelContrastiveLoss()(torch.randn(4, 3), torch.randn(4, 5)), "one N and C"),
        (lambda: ChannelContrastiveLoss()(torch.randn(4, 3), torch.randn(4, 3, 2, 2)), "one N and C"),
        (lambda: ChannelContrastiveLoss(targets="medium"), "medium"),
    ],
)
def test_misuse_says_what_is_wrong(call, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as for a user, who has no type checker
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("negatives", ["teacher", "student"])
@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_what_ranks_sum_up_is_as_long_as_it_says(targets, negatives, scope, monkeypatch):
    lengths = []

    def counted(value):
        lengths.append(value.numel())
        return value

    monkeypatch.setattr(contrast, "num_ranks", lambda: 2)
    monkeypatch.setattr(contrast, "all_reduce", counted)
    monkeypatch.setattr(contrast, "sum_over_ranks", counted)
    loss = ChannelContrastiveLoss(targets=targets, negatives=negatives, scope=scope)
    loss(torch.randn(4, 6, 3, 3), torch.randn(4, 6, 3, 3))
    assert sum(lengths) == loss.numbers_summed(6)
