"""What is said of a student's channels and answers, against cases whose numbers are known."""

import pytest
import torch
from accelerate import Accelerator

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import Seen, observe
from dccd_timm.report.evidence import _answers
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
    assert matrix.diagonal().abs().mean() < 0.2  # fitted and judged on the same images it would be near 1


def test_constant_channels_correlate_with_nothing():
    student, teacher = torch.randn(40, 3), torch.randn(40, 3)
    student[:, 1], teacher[:, 1] = 7.0, 5.0
    matrix = matched_correlation(student, teacher)
    assert matrix.isfinite().all() and (matrix[:, 1] == 0).all() and (matrix[1].abs() < 1e-6).sum() >= 1


def test_classes_pairs_and_outcomes(tmp_path):
    target = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    answers = {
        "student": torch.tensor([0, 0, 1, 1, 1, 0, 2, 0]),
        "teacher": torch.tensor([0, 0, 0, 1, 1, 0, 2, 1]),
        "control": torch.tensor([0, 1, 1, 1, 1, 1, 0, 0]),
    }
    found = _answers(tmp_path, Seen(target, answers, {}), ["a", "b", "c"], "student without distillation")
    assert [(r["name"], r["images"], r["student"], r["control"], r["change"]) for r in found["per_class"]] == [
        ("a", 4, 50, 25, 25), ("b", 2, 50, 100, -50), ("c", 2, 50, 0, 50),
    ]  # fmt: skip
    pairs = {(p["true"], p["answer"]): (p["student"], p["teacher"], p["control"]) for p in found["confused"]}
    assert pairs == {("a", "b"): (50, 25, 75), ("b", "a"): (50, 50, 0), ("c", "a"): (50, 0, 100)}
    assert found["agreement"] == 75
    assert list(found["outcomes"].values()) == [50, 0, 12.5, 25, 12.5] and sum(found["outcomes"].values()) == 100


@pytest.mark.parametrize("limit", [5, 100])
def test_every_image_is_answered_once_and_the_first_give_features(limit):
    import timm

    torch.manual_seed(0)
    images, target = torch.randn(12, 1, 3, 32, 32), torch.arange(12) % 4
    model = timm.create_model("test_resnet", num_classes=4).eval()
    batches = [Batch(images[k : k + 4], target[k : k + 4]) for k in (0, 4, 8)]
    seen = observe({"student": model, "start": model}, batches, Accelerator(cpu=True), limit, features_only="start")
    with torch.inference_mode():
        assert torch.equal(seen.answers["student"], model(images[:, 0]).argmax(1))
        pooled = model.forward_head(model.forward_features(images[:, 0]), pre_logits=True)[: min(limit, 12)]
    assert torch.equal(seen.target, target) and set(seen.answers) == {"student"}
    for word in ("student", "start"):
        torch.testing.assert_close(seen.features[word], pooled)
