"""The teacher computes in its own precision, whatever the student's."""

import copy

import pytest
import timm
import torch

from dccd_timm import DCCDTask
from dccd_timm.models.teacher import FrozenTeacher, freeze

CPU = torch.device("cpu")


def networks():
    torch.manual_seed(0)
    student = timm.create_model("resnet10t", num_classes=5)
    teacher = timm.create_model("test_vit", num_classes=5, img_size=64)
    return student, teacher


@pytest.mark.parametrize("amp", [False, True])
def test_a_half_precision_teacher_says_nearly_the_same(amp):
    """Against a copy that torch casts; under autocast too, which must not turn it back or cast it further."""
    images, target = torch.randn(8, 3, 64, 64), torch.arange(8) % 4
    student, teacher = networks()
    expected = copy.deepcopy(teacher).eval().bfloat16()(images.bfloat16()).float()
    same = dict(input_size=(3, 64, 64), input_mean=(0.5,) * 3, input_std=(0.5,) * 3)
    task = DCCDTask(student, teacher, device=CPU, teacher_dtype=torch.bfloat16, verbose=False, **same)
    with torch.autocast("cpu", dtype=torch.float16, enabled=amp):
        logits, maps = task.teacher(images, task.teacher_stages)
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.05)
    assert {p.dtype for p in task.teacher.parameters()} == {torch.bfloat16}
    assert maps[0].dtype == torch.bfloat16
    assert {p.dtype for p in task.trainable_module.parameters()} == {torch.float32}
    loss = task(images, target)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_timms_own_tasks_get_float32_from_it():
    _, teacher = networks()
    wrapped = FrozenTeacher(freeze(teacher), (0.5,) * 3, (0.5,) * 3, (3, 64, 64), torch.bfloat16)
    images = torch.randn(2, 3, 64, 64)
    assert wrapped(images).dtype == torch.float32
    features = wrapped.forward_features(images)
    assert features.dtype == torch.bfloat16
    assert wrapped.forward_head(features, pre_logits=True).dtype == torch.float32
