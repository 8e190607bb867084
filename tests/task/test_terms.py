"""The base task: every loss between logits, its weights and temperature, and the warm-up."""

import copy

import pytest
import torch
from torch import nn

from dccd_timm import DCCDTask, losses
from dccd_timm.recipe.methods import LOGIT_LOSSES
from dccd_timm.task.terms import LOSSES, Distillation, Inputs, TermTask
from tests.task.small import batch, resnet

INPUTS = Inputs((3, 64, 64), teacher_img_size="student")


def make(**distillation):
    return TermTask(resnet(0), resnet(1), nn.CrossEntropyLoss(), None, Distillation(**distillation), INPUTS).train()


def test_every_declared_loss_has_its_function():
    assert set(LOSSES) == set(LOGIT_LOSSES)
    assert {name: f.__name__ for name, f in LOSSES.items()} == {name: name for name in LOSSES} | {"kl": "kd"}


@pytest.mark.parametrize(
    ("loss", "task_weight", "weight", "temperature"),
    [("kl", 1, 1, 4), ("ls", 0.1, 9, 2), ("dkd", 1, 1, 4), ("dist", 1, 2, 1), ("wttm", 1, 45, None)],
)
def test_each_loss_comes_with_the_settings_of_its_paper(loss, task_weight, weight, temperature):
    task = make(loss_type=loss)
    assert task.term_weights == {"task_loss": task_weight, "kd_loss": weight}
    assert task.loss_kwargs.get("temperature") == temperature
    images, target = batch()
    out = task(images, target)
    kwargs = {} if temperature is None else {"temperature": temperature}
    wanted = getattr(losses, "kd" if loss == "kl" else loss)(
        out["output"], task.teacher(images.transpose(0, 1).flatten(0, 1)), target.repeat(2), **kwargs
    )
    torch.testing.assert_close(out["kd_loss"], wanted)
    torch.testing.assert_close(out["loss"], task_weight * out["task_loss"] + weight * wanted)


def test_given_weights_and_temperature_count():
    task = make(loss_type="ls", distill_loss_weight=3.0, task_loss_weight=0.5, temperature=5.0)
    assert task.term_weights == {"task_loss": 0.5, "kd_loss": 3.0} and task.loss_kwargs == {"temperature": 5.0}
    # timm's rule is one between weights of one scale
    assert make(loss_type="wttm", task_loss_weight=0.5).term_weights == {"task_loss": 0.5, "kd_loss": 45.0}
    assert make(task_loss_weight=0.25).term_weights == {"task_loss": 0.25, "kd_loss": 0.75}


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="loss_type must be one of"):
        make(loss_type="magic")


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_dccd_takes_every_loss_between_logits(loss, soft):
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), loss_type=loss, input_size=(3, 64, 64))
    images, target = batch()
    out = task.train()(images, nn.functional.one_hot(target, 10).float() if soft else target)
    out["loss"].backward()
    weights = task.term_weights
    assert list(weights) == ["task_loss", "kd_loss", "contrast_loss", "difference_loss"]
    assert weights["kd_loss"] == LOGIT_LOSSES[loss].weight
    torch.testing.assert_close(out["loss"], sum(w * out[name] for name, w in weights.items()))


def test_the_weight_of_distillation_rises_over_the_warm_up():
    task, images = make(warmup_epochs=2.0), batch()
    for epochs, share in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5), (2.0, 1.0), (7.0, 1.0)):
        task.set_progress(epochs)
        out = copy.deepcopy(task)(*images)
        torch.testing.assert_close(out["loss"], out["task_loss"] + share * out["kd_loss"], rtol=1e-6, atol=1e-7)
    assert task.term_weights["kd_loss"] == 1  # what is shown is the weight that it rises to


def test_a_loss_between_logits_alone_needs_a_teacher_with_a_head():
    with pytest.raises(ValueError, match="has no head: its features alone are no loss between logits"):
        TermTask(resnet(0), resnet(1, num_classes=0))
