"""Feature methods as tasks: stages, projectors, weights, and every kind of timm pair."""

import pytest
import timm
import torch
from torch import nn

from dccd_timm import losses
from dccd_timm.recipe.methods import METHODS
from dccd_timm.task.feature import FeatureTask
from dccd_timm.task.terms import Distillation, Inputs
from tests.task.small import batch, resnet

FEATURE_METHODS = [name for name, method in METHODS.items() if method.has_feature_loss]


def make(method, student=None, teacher=None, size=64, **more):
    torch.manual_seed(2)
    return FeatureTask(
        student or resnet(0), teacher or resnet(1, (16, 24, 32)), method, nn.CrossEntropyLoss(),
        inputs=Inputs((3, size, size), teacher_img_size="student"), **more,
    ).train()  # fmt: skip


@pytest.mark.parametrize("method", FEATURE_METHODS)
def test_the_weight_is_that_of_the_paper_and_gradients_reach_student_and_projector(method):
    task = make(method)
    assert task.term_weights == {"task_loss": 1, "feature_loss": METHODS[method].weight}
    out = task(*batch())
    out["loss"].backward()
    torch.testing.assert_close(out["loss"], out["task_loss"] + METHODS[method].weight * out["feature_loss"])
    for name, parameter in task.trainable_module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert not any(p.requires_grad for p in task.teacher.parameters())


@pytest.mark.parametrize("method", ["at", "sp", "rkd"])
def test_without_a_projector_it_is_the_loss_between_the_maps(method):
    images, target = batch()
    task = make(method, stages=[-2])
    out = task(images, target)
    student = resnet(0).train()
    folded = images.transpose(0, 1).flatten(0, 1)
    maps = [
        network.forward_intermediates(folded, indices=[2], output_fmt="NCHW")[1][0]
        for network in (student, resnet(1, (16, 24, 32)).eval())
    ]
    torch.testing.assert_close(out["feature_loss"], getattr(losses, method)(*maps), rtol=1e-4, atol=1e-7)


def test_attention_and_exits_take_every_large_enough_stage():
    # of 64 px: 32, 16, 8 and 4 positions across
    assert make("at").trainable_module.stages == make("ofa").trainable_module.stages == [0, 1, 2, 3]
    assert make("fitnet").trainable_module.stages == make("wkd").trainable_module.stages == [3]
    assert make("at", stages=[-1]).trainable_module.stages == [3]
    assert make("ofa").teacher_stages == []


def test_networks_of_different_depths_are_paired_from_the_end():
    teacher = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=2)
    task = make("at", teacher=teacher)
    assert len(task.teacher_stages) == len(task.trainable_module.stages) == 2


def test_given_weights_and_parameters_count():
    given = Distillation(distill_loss_weight=0.5, task_loss_weight=0.25, loss_kwargs={"mean_weight": 4.0, "grid": 2})
    task = make("wkd", distillation=given)
    assert task.term_weights == {"task_loss": 0.25, "feature_loss": 0.5}
    assert task.feature_kwargs == {"mean_weight": 4.0, "grid": 2}
    assert task(*batch())["loss"].isfinite()


@pytest.mark.parametrize("soft", [False, True])
def test_exits_take_hard_and_mixed_targets(soft):
    images, target = batch()
    target = nn.functional.one_hot(target, 10).float() if soft else target
    assert make("ofa")(images, target)["loss"].isfinite()


def test_mistakes_are_one_line():
    with pytest.raises(ValueError, match="method must be one of"):
        make("magic")
    with pytest.raises(ValueError, match="stages"):
        make("sp", stages=[-9])


def test_ofa_needs_a_teacher_with_a_head():
    with pytest.raises(ValueError, match="has no head, and ofa reads its logits"):
        FeatureTask(resnet(0), resnet(1, num_classes=0), "ofa")
