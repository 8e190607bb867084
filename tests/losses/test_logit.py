"""Losses between logits against float64 NumPy, and the limits that hold by their construction."""

import numpy as np
import pytest
import torch

from dccd_timm.losses import dist, dkd, kd, ls, ofa, wttm
from tests.losses import reference

LABELS = np.array([0, 3, 4, 1, 2, 2])
TARGET = torch.tensor(LABELS)
MIXED = 0.7 * torch.eye(5)[TARGET] + 0.3 * torch.eye(5)[TARGET.roll(1)]
CASES = {
    "kd": (lambda s, t, y: kd(s, t, y), lambda s, t: reference.kd(s, t, 4.0)),
    "kd T 2": (lambda s, t, y: kd(s, t, y, temperature=2.0), lambda s, t: reference.kd(s, t, 2.0)),
    "ls": (lambda s, t, y: ls(s, t, y), lambda s, t: reference.ls(s, t, 2.0)),
    "dkd": (lambda s, t, y: dkd(s, t, y), lambda s, t: reference.dkd(s, t, LABELS, 1, 8, 4.0)),
    "dkd T 1": (
        lambda s, t, y: dkd(s, t, y, alpha=0.5, beta=2.0, temperature=1.0),
        lambda s, t: reference.dkd(s, t, LABELS, 0.5, 2.0, 1.0),
    ),
    "dist": (lambda s, t, y: dist(s, t, y), lambda s, t: reference.dist(s, t, 1, 1, 1.0)),
    "dist T 4": (
        lambda s, t, y: dist(s, t, y, beta=2.0, gamma=0.5, temperature=4.0),
        lambda s, t: reference.dist(s, t, 2, 0.5, 4.0),
    ),
    "wttm": (lambda s, t, y: wttm(s, t, y), lambda s, t: reference.wttm(s, t, 0.1)),
    "wttm 0.5": (lambda s, t, y: wttm(s, t, y, gamma=0.5), lambda s, t: reference.wttm(s, t, 0.5)),
    "ofa": (lambda s, t, y: ofa(s, t, y), lambda s, t: reference.ofa(s, t, LABELS, 1.0, 1.0)),
    "ofa 1.5": (lambda s, t, y: ofa(s, t, y, exponent=1.5), lambda s, t: reference.ofa(s, t, LABELS, 1.5, 1.0)),
}
FUNCTIONS = {function.__name__: function for function in (kd, ls, dkd, dist, wttm, ofa)}


def logits(seed=2, scale=3, shape=(6, 5)):
    rng = np.random.default_rng(seed)
    return rng.normal(0, scale, shape), rng.normal(0, scale, shape)


@pytest.mark.parametrize("target", [TARGET, MIXED], ids=["hard", "mixed"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case, target):
    loss, formula = CASES[case]
    student, teacher = logits()
    reference.check(lambda s, t: loss(s, t, target), lambda s: formula(s, teacher), student, teacher)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_inputs_are_computed_in_float32(case, autocast):
    loss, formula = CASES[case]
    halves = [torch.tensor(z).bfloat16() for z in logits(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(*halves, TARGET)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(formula(*(z.double().numpy() for z in halves)), rel=1e-4)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_logits_give_finite_losses_and_gradients(name):
    teacher = torch.tensor([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0], [-50.0, 80.0, 0.0]])
    student = torch.tensor([[-1000.0, 0.0, 1000.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], requires_grad=True)
    value = FUNCTIONS[name](student, teacher, torch.tensor([0, 1, 2]))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_dkd_with_the_teachers_own_weights_is_kd():
    student, teacher = (torch.tensor(z) for z in logits())
    beta = 1 - (teacher.float() / 4).softmax(1).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(dkd(student, teacher, TARGET, alpha=1.0, beta=beta), kd(student, teacher))


def test_wttm_with_equal_weights_is_kd_of_a_softened_teacher():
    """A teacher whose answers are permutations of each other has one u."""
    student, row = torch.tensor(logits()[0]), torch.tensor(logits()[1][0])
    teacher = torch.stack([row.roll(k) for k in range(len(student))])
    u = (row.softmax(0) ** 0.25).sum().float()
    student_at_4 = student * 4  # KD softens both; wttm the teacher alone
    torch.testing.assert_close(wttm(student, teacher, gamma=0.25), u * kd(student_at_4, teacher, temperature=4.0) / 16)


def test_dist_of_matching_answers_is_zero():
    teacher = torch.tensor(logits()[1])
    shifted = teacher + torch.arange(6.0)[:, None]  # softmax does not see it
    torch.testing.assert_close(dist(shifted, teacher), torch.tensor(0.0), atol=1e-6, rtol=0)
    # of two classes, rows are +-1 correlated whatever the scale
    two = teacher[:, :2]
    torch.testing.assert_close(dist(two * 3, two, gamma=0.0), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_ls_does_not_see_scale_and_shift():
    student, teacher = (torch.tensor(z) for z in logits())
    torch.testing.assert_close(ls(student * 7 - 3, teacher), ls(student, teacher), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ls(teacher * 7 - 3, teacher), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", [dkd, ofa])
def test_missing_targets_are_refused(loss):
    with pytest.raises(ValueError, match="target class"):
        loss(*(torch.tensor(z) for z in logits()))


@pytest.mark.parametrize("loss", [dkd, ls])
def test_one_class_is_refused(loss):
    with pytest.raises(ValueError, match="2 classes"):
        loss(torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
