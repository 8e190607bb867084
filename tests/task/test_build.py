"""Every method becomes its task, with its teacher and the weights of its terms."""

import pytest
import timm
import torch
from timm.task import ClassificationTask, FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask

from dccd_timm import DCCDTask
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.task.build import build_task, teacher_of, term_weights
from dccd_timm.task.feature import FeatureTask
from tests.task.small import batch, resnet

CPU = torch.device("cpu")
CONFIG = dict(
    input_size=(3, 64, 64), mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_pct=1.0, crop_mode="center"
)
TASKS = {
    "none": ClassificationTask,
    "logit": LogitDistillationTask,
    "feature": FeatureDistillationTask,
    "token": TokenDistillationTask,
    "dccd": DCCDTask,
} | dict.fromkeys(("fitnet", "at", "sp", "rkd", "wkd", "ofa"), FeatureTask)


def build(method, *flags, soft_targets=False):
    named = ["--kd-model-name", "resnetv2_18"] if method != "none" else []
    recipe = load_recipe(["--data-dir", "d", "--kd-distill-type", method, *named, *flags])
    student = resnet(0)
    if method == "token":
        student = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, img_size=64, depth=1)
    teacher = resnet(1, (16, 24, 32)) if method != "none" else None
    return build_task(recipe, student, teacher, CONFIG, soft_targets, CPU)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_task(method):
    task = build(method).train()
    assert type(task) is TASKS[method]
    views, target = batch()
    out = task(views.flatten(0, 1), target.repeat(2))
    terms = term_weights(task)
    assert set(terms) == set(METHODS[method].terms)
    if method != "none":  # there the loss is the task's
        total = sum(weight * out[name] for name, weight in terms.items())
        torch.testing.assert_close(out["loss"], total)


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_of_a_task_is_found_compiled_or_not(method):
    task = build(method)
    teacher = teacher_of(task)
    assert (teacher is None) == (method == "none")
    task.compile(backend="eager")
    assert teacher_of(task) is teacher
    if teacher is not None:
        assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())


def test_weights_follow_timms_rule():
    assert term_weights(build("logit", "--task-loss-weight", "0.3")) == {"task_loss": 0.3, "kd_loss": 0.7}
    weights = term_weights(build("dccd", "--task-loss-weight", "0.3", "--dccd-contrast-weight", "2"))
    assert weights == {"task_loss": 0.3, "kd_loss": 0.7, "contrast_loss": 2.0, "difference_loss": 0.02}


def test_a_pair_that_cannot_work_is_one_line():
    with pytest.raises(UserError, match="stages") as caught:
        build("dccd", "--dccd-contrast-stages", "-9")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "width"), [("student", 24), ("teacher", 32)])
def test_a_width_of_features_that_is_not_the_networks_is_one_line(name, width):
    flag = f"--kd-{name}-feature-dim"
    build("feature", flag, str(width))
    with pytest.raises(UserError, match=f"{flag} 7: the {name}'s features are {width} wide; drop it"):
        build("feature", flag, "7")


def test_criteria():
    assert build("none", "--smoothing", "0").criterion.__class__.__name__ == "CrossEntropyLoss"
    assert build("none", soft_targets=True).criterion.__class__.__name__ == "SoftTargetCrossEntropy"
    assert build("none", "--bce-loss").criterion.__class__.__name__ == "BinaryCrossEntropy"
