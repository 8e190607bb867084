"""One pass over a split: the metrics of timm's evaluator, answers, and features of the first images."""

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.task import ClassificationEvaluator

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import Evaluation, evaluate, evaluate_together


@pytest.fixture
def models():
    torch.manual_seed(0)
    return {name: timm.create_model("test_resnet", num_classes=4).eval() for name in ("student", "teacher", "start")}


@pytest.fixture
def batches():
    torch.manual_seed(1)
    images, target = torch.randn(12, 1, 3, 32, 32), torch.arange(12) % 4
    return [Batch(images[k : k + 4], target[k : k + 4]) for k in (0, 4, 8)]


def by_hand(model, batches):
    """Logits and pooled features, batch by batch, and the metrics of timm's evaluator."""
    evaluator = ClassificationEvaluator()
    logits, pooled = [], []
    with torch.inference_mode():
        for batch in batches:
            logits.append(model(batch.views[:, 0]))
            pooled.append(model.forward_head(model.forward_features(batch.views[:, 0]), pre_logits=True))
            evaluator.update(logits[-1], batch.target)
    return torch.cat(logits), torch.cat(pooled), dict(evaluator.compute())


@pytest.mark.parametrize("limit", [0, 5, 100])
def test_every_image_is_evaluated_once_and_the_first_give_features(models, batches, limit):
    networks = {name: models[name] for name in ("student", "teacher")}
    found = evaluate_together(
        networks, batches, Accelerator(cpu=True), ClassificationEvaluator,
        feature_images=limit, features_only={"start": models["start"]},
    )  # fmt: skip
    assert torch.equal(found.target, torch.arange(12) % 4)
    assert set(found.answers) == set(found.metrics) == {"student", "teacher"}
    for name in networks:
        logits, _, metrics = by_hand(models[name], batches)
        assert found.metrics[name] == metrics and torch.equal(found.answers[name], logits.argmax(1))
    assert set(found.features) == (set(models) if limit else set())
    for name, features in found.features.items():
        torch.testing.assert_close(features, by_hand(models[name], batches)[1][: min(limit, 12)])


def test_agreement_is_a_share_of_the_images():
    answers = {"student": torch.tensor([0, 1, 2, 2]), "teacher": torch.tensor([0, 1, 1, 2])}
    assert Evaluation({}, torch.zeros(4), answers, {}).agreement("student", "teacher") == 75


def test_networks_are_evaluated_in_eval_mode(models, batches):
    expected = by_hand(models["student"], batches)[2]
    model = models["student"].train()
    assert evaluate(model, batches, Accelerator(cpu=True), ClassificationEvaluator()) == expected
    assert not model.training


def test_mixed_precision_gives_metrics_and_features_of_one_forward(models, batches, fresh_accelerator):
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    networks = {"student": models["student"]}
    found = evaluate_together(networks, batches, accelerator, ClassificationEvaluator, feature_images=12)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        _, pooled, metrics = by_hand(models["student"], batches)
    assert found.metrics["student"] == metrics and found.features["student"].dtype == torch.float32
    torch.testing.assert_close(found.features["student"], pooled.float())


def test_a_stop_in_the_middle_gives_nothing(models, batches):
    answers = iter([False, False, True, True])
    stopped = evaluate(models["student"], batches, Accelerator(cpu=True), ClassificationEvaluator(),
                       stopping=lambda: next(answers))  # fmt: skip
    assert stopped is None
