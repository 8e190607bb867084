"""One pass over a split: the metrics of timm's evaluator, answers, and features of the first images."""

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.task import ClassificationEvaluator

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import Evaluation, evaluate, evaluate_together
from dccd_timm.errors import UserError


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
    found = evaluate(model, batches, Accelerator(cpu=True), ClassificationEvaluator())
    assert found == expected | {"images": 12, "skipped": 0}
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


def test_images_that_could_not_be_read_are_counted_beside_those_that_count(models, batches, caplog):
    """Each once, by their names, also those of a batch of which none could be read."""
    broken = [Batch.empty([("a", 1), ("shard b", 20)]), *batches, Batch.empty([("a", 1)])]
    networks, accelerator = {"student": models["student"]}, Accelerator(cpu=True)
    found = evaluate_together(networks, broken, accelerator, ClassificationEvaluator)
    assert found.metrics["student"] == by_hand(models["student"], batches)[2]
    assert found.counts == {"images": 12, "skipped": 21} and found.skipped == {"a": 1, "shard b": 20}
    assert "evaluated on 12 images: 21 could not be read; the first: a" in caplog.text


@pytest.mark.parametrize("skipped", [[], [("a.png (not an image)", 1)]])
def test_metrics_of_no_image_are_no_result(models, skipped):
    with pytest.raises(
        UserError, match=r"no image of the validation split could be read" + "; the first: a.png" * len(skipped)
    ):
        evaluate(models["student"], [Batch.empty(skipped)], Accelerator(cpu=True), ClassificationEvaluator())
