"""What is said of a student's channels and answers, against cases whose numbers are known."""

import pytest
import torch

from dccd_timm.engine.evaluate import Evaluation
from dccd_timm.report.evidence import compare_answers, correlate, measure_redundancy
from dccd_timm.report.redundancy import matched_correlation


def test_a_linear_mixture_of_the_teachers_channels_holds_them_all():
    torch.manual_seed(0)
    teacher = torch.randn(600, 5).double()
    student = teacher @ torch.randn(5, 8).double() * 3 + 1
    matrix = matched_correlation(student, teacher)
    assert matrix.shape == (5, 5) and (matrix.diagonal() > 0.99).all()
    halved = teacher.clone()
    halved[:, 3:] = torch.randn(600, 2).double()  # two of five channels are not in it
    diagonal = matched_correlation(halved[:, :5], teacher).diagonal()
    assert (diagonal[:3] > 0.99).all() and (diagonal[3:].abs() < 0.2).all()


def test_noise_is_not_read_out_of_noise_however_many_channels_there_are():
    torch.manual_seed(0)
    matrix = matched_correlation(torch.randn(200, 90), torch.randn(200, 10))
    assert matrix.diagonal().abs().mean() < 0.2  # fitted and evaluated on the same images it would be near 1


def test_constant_channels_correlate_with_nothing():
    student, teacher = torch.randn(40, 3), torch.randn(40, 3)
    student[:, 1], teacher[:, 1] = 7.0, 5.0
    matrix = matched_correlation(student, teacher)
    assert matrix.isfinite().all() and (matrix[:, 1] == 0).all() and (matrix[1].abs() < 1e-6).sum() >= 1


def test_classes_pairs_and_outcomes():
    target = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    answers = {
        "student": torch.tensor([0, 0, 1, 1, 1, 0, 2, 0]),
        "teacher": torch.tensor([0, 0, 0, 1, 1, 0, 2, 1]),
        "control": torch.tensor([0, 1, 1, 1, 1, 1, 0, 0]),
    }
    found = compare_answers(Evaluation({}, target, answers, {}), ["a", "b", "c"], "student without distillation")
    assert [(r.name, r.images, r.student, r.control, r.change) for r in found.per_class] == [
        ("a", 4, 50, 25, 25), ("b", 2, 50, 100, -50), ("c", 2, 50, 0, 50),
    ]  # fmt: skip
    pairs = {(p.true, p.answer): (p.student, p.teacher, p.control) for p in found.confused}
    assert pairs == {("a", "b"): (50, 25, 75), ("b", "a"): (50, 50, 0), ("c", "a"): (50, 0, 100)}
    assert found.agreement == 75
    assert found.reference == found.control == "student without distillation"
    assert list(found.outcomes.values()) == [50, 0, 12.5, 25, 12.5] and sum(found.outcomes.values()) == 100


def test_a_student_without_teacher_and_control_is_compared_with_nothing():
    target, answers = torch.tensor([0, 0, 1]), {"student": torch.tensor([0, 1, 1])}
    found = compare_answers(Evaluation({}, target, answers, {}), None, "")
    assert found.reference == "nothing" and found.agreement is None and found.outcomes == {}
    assert [(r.name, r.student, r.teacher, r.change) for r in found.per_class] == [
        ("class 0", 50, None, 50), ("class 1", 100, None, 100),
    ]  # fmt: skip


def test_redundancy_of_every_network_and_the_teachers_channels_in_the_student():
    torch.manual_seed(0)
    teacher = torch.randn(400, 4)
    features = {
        "teacher": teacher,
        "student": teacher @ torch.randn(4, 6),
        "student before training": torch.randn(400, 6),
    }
    found = measure_redundancy(features, correlate(features))
    assert (found.teacher.channels, found.student.channels, found.control) == (4, 6, None)
    assert found.student.effective_rank < 4.001 < found.student_before_training.effective_rank
    assert found.student_teacher.after > 0.95 > 0.4 > abs(found.student_teacher.before)
    assert found.student_teacher.control is None
    assert found.teacher.effective_rank == pytest.approx(4, abs=0.1)


def test_the_control_is_read_like_the_student():
    torch.manual_seed(0)
    teacher = torch.randn(400, 4)
    features = {
        "teacher": teacher,
        "student": teacher @ torch.randn(4, 6),
        "control": torch.cat([teacher[:, :2], torch.randn(400, 4)], 1),
        "student before training": torch.randn(400, 6),
    }
    correlations = correlate(features)
    assert all(list(panel) == ["student before training", "control", "student"] for panel in correlations.values())
    assert measure_redundancy(features, correlations).student_teacher.control == pytest.approx(0.5, abs=0.1)
