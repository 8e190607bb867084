"""The frozen teacher is shown what it was trained on, at the size that was chosen, in its own precision."""

import copy

import pytest
import timm
import torch
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.teacher import freeze
from tests.task.small import batch, resnet


def test_teacher_sees_its_own_normalisation_under_mean_and_std():
    """The same pixels, whatever normalisation the loader used for the student."""
    teacher = resnet(1).eval()
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = torch.rand(4, 3, 64, 64)

    def normal(mean, std):
        return (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    task = DCCDTask(resnet(0), teacher, nn.CrossEntropyLoss(), input_mean=(0.1, 0.2, 0.3), input_std=(0.7, 0.8, 0.9))
    with torch.no_grad():
        wanted = teacher(normal((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    got = task.teacher(normal((0.1, 0.2, 0.3), (0.7, 0.8, 0.9)))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_grey_student_and_colour_teacher_and_the_other_way_round():
    grey, colour = resnet(0, in_chans=1), resnet(1)
    pixels = torch.rand(4, 1, 64, 64)
    same_size = dict(teacher_img_size="student")
    shape = dict(input_size=(1, 64, 64), input_mean=(0.5,), input_std=(0.25,))
    task = DCCDTask(grey, colour, nn.CrossEntropyLoss(), **shape, **same_size)
    mean, std = (torch.tensor(colour.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        wanted = colour((pixels.expand(-1, 3, -1, -1) - mean) / std)
    torch.testing.assert_close(task.teacher((pixels - 0.5) / 0.25), wanted, rtol=1e-4, atol=1e-5)
    task.train()((pixels[:, None] - 0.5).expand(-1, 2, -1, -1, -1), torch.arange(4))["loss"].backward()

    grey.pretrained_cfg = dict(grey.pretrained_cfg, mean=(0.4,), std=(0.3,))
    pixels = torch.rand(4, 3, 64, 64)
    task = DCCDTask(colour.requires_grad_(), grey, nn.CrossEntropyLoss(), input_size=(3, 64, 64), **same_size)
    luma = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    with torch.no_grad():
        wanted = grey((luma - 0.4) / 0.3)
    torch.testing.assert_close(task.teacher((pixels - mean) / std), wanted, rtol=1e-3, atol=1e-4)


def test_fixed_size_teacher_gets_its_own_size():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=96, depth=2)
    task = DCCDTask(resnet(0), vit, nn.CrossEntropyLoss(), input_size=(3, 64, 64)).train()
    out = task(*batch())
    out["loss"].backward()
    assert out["loss"].isfinite()


def interpolated(images, size):
    return nn.functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


@pytest.mark.parametrize(("choice", "size"), [("own", 96), ("student", 64), (128, 128), ("128", 128)])
def test_the_teacher_sees_the_views_at_the_size_that_was_chosen(choice, size):
    """Its answers are those of the plain network, fed by hand; the contrast pools maps of other grids."""
    teacher = resnet(1).eval()
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, input_size=(3, 96, 96), test_input_size=(3, 112, 112))
    teacher.pretrained_cfg |= {key: resnet(0).pretrained_cfg[key] for key in ("mean", "std")}
    task = DCCDTask(resnet(0), teacher, input_size=(3, 64, 64), teacher_img_size=choice)
    images, target = batch()
    with torch.no_grad():
        wanted = teacher(interpolated(images[:, 0], size) if size != 64 else images[:, 0])
    torch.testing.assert_close(task.teacher(images[:, 0]), wanted, rtol=1e-4, atol=1e-5)
    assert task.teacher.input_size((3, 64, 64)) == (3, size, size)
    assert task(images, target)["loss"].isfinite()


def test_a_published_teacher_is_fed_the_size_it_was_trained_at():
    """timm's a1 weights were trained at 224 and are tested at 288."""
    teacher = timm.create_model("resnet50.a1_in1k", num_classes=5)
    assert teacher.pretrained_cfg["test_input_size"] == (3, 288, 288)
    wrapped = FrozenTeacher(teacher, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (3, 256, 256))
    assert wrapped.input_size((3, 256, 256)) == (3, 224, 224)
    assert wrapped.conversions((3, 256, 256)) == "3x224x224, resized from 256x256"


def test_a_student_of_224_pixels_and_a_teacher_of_256():
    student = timm.create_model("resnet10t", num_classes=5)
    teacher = timm.create_model("efficientnet_b1.ra4_e3600_r240_in1k", num_classes=5)
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, input_size=(3, 256, 256))
    task = DCCDTask(student, teacher, input_size=(3, 224, 224), contrast_stages=(-1,))
    assert task.teacher.resized == (256, 256)  # maps of 7 x 7 and 8 x 8
    assert task(torch.randn(2, 2, 3, 224, 224), torch.arange(2))["contrast_loss"].isfinite()


def test_a_size_that_a_teacher_does_not_take_is_refused():
    teacher = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=1)
    with pytest.raises(ValueError, match="VisionTransformer does not take images of 32x32 .it has one size"):
        FrozenTeacher(teacher, (0.5,), (0.5,), (3, 32, 32), img_size="student")
    halo = timm.create_model("halonet26t", num_classes=10)
    with pytest.raises(ValueError, match="does not take images of 100x100") as caught:
        FrozenTeacher(halo, (0.5,), (0.5,), (3, 256, 256), img_size=100)
    assert "\n" not in str(caught.value)


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
    task = DCCDTask(student, teacher, device=torch.device("cpu"), teacher_dtype=torch.bfloat16, verbose=False, **same)
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


@pytest.mark.parametrize("fold", [False, True])
def test_a_teacher_without_a_head_gives_maps_features_and_no_logits(fold):
    teacher = resnet(1, num_classes=0).eval()
    frozen = FrozenTeacher(teacher, (0.5,) * 3, (0.5,) * 3, (3, 64, 64), fold=fold, img_size="student")
    images = torch.randn(2, 3, 64, 64)
    logits, maps = frozen(images, [2])
    assert logits.shape == frozen(images).shape == (2, 0) and frozen.has_features
    torch.testing.assert_close(maps[0], teacher.forward_intermediates(frozen.adapt(images), indices=[2])[1][0])
    pooled = frozen.forward_head(frozen.forward_features(images), pre_logits=True)
    torch.testing.assert_close(pooled, teacher(frozen.adapt(images)))


def test_an_encoder_that_does_not_pool_has_maps_and_no_features():
    torch.manual_seed(0)
    encoder = timm.create_model("qwen3_vit_88m_enc", img_size=64, depth=2).eval()
    frozen = FrozenTeacher(encoder, (0.5,) * 3, (0.5,) * 3, (3, 64, 64), img_size="student")
    logits, maps = frozen(torch.randn(1, 3, 64, 64), [1])
    assert logits.shape == (1, 0) and maps[0].ndim == 4 and not frozen.has_features
