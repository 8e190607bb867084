"""One training step of pairs across timm's families, and the pairs that cannot work, with what they say."""

import copy

import pytest
import timm
import torch
from timm.models import resolve_model_input_args
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.recipe.methods import METHODS
from dccd_timm.task.feature import FeatureTask
from dccd_timm.task.terms import Inputs

SIZE = 64
FEATURE_METHODS = [name for name, method in METHODS.items() if method.has_feature_loss]
PAIRS = [
    "test_resnet",
    "resnet10t",
    "test_efficientnet",
    "test_vit",
    "test_vit",
    "test_efficientnet",
    "test_convnext",
    "test_vit2",
    "test_byobnet",
    "regnetx_002",
    "test_nfnet",
    "test_convnext",
    "test_mambaout",
    "mobileone_s0",
    "test_coatnet",
    "test_maxvit",
    "test_maxvit",
    "test_coatnet",
    "test_vit4",
    "resnet10t",
    "test_vit_relpos",
    "convnext_zepto_rms",
    "test_efficientnet_gn",
    "pit_ti_224",
    "resnet10t",
    "deit_tiny_distilled_patch16_224",
    "mobilenetv2_035",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_050",
    "levit_128s",
    "mobilenetv4_conv_small",
    "mobilenetv3_small_100",
    "deit_tiny_patch16_224",
    "gmlp_ti16_224",
    "deit_tiny_distilled_patch16_224",
    "regnetx_002",
    "vit_tiny_patch16_224",
    "eva02_tiny_patch14_224",
    "levit_128s",
    "resnet10t",
    "levit_conv_128s",
    "levit_128s",
    "pit_ti_224",
    "vit_tiny_patch16_224",
    "pit_ti_distilled_224",
    "resnet10t",
    "swin_tiny_patch4_window7_224",
    "resnet10t",
    "swinv2_cr_tiny_ns_224",
    "test_vit",
    "gmlp_ti16_224",
    "densenet121",
    "mixer_s16_224",
    "resnet10t",
    "eva02_tiny_patch14_224",
    "test_resnet",
    "convnextv2_atto",
    "swin_tiny_patch4_window7_224",
    "densenet121",
    "test_vit3",
    "regnetx_002",
    "xcit_nano_12_p16_224",
    "ghostnet_050",
    "efficientvit_b0",
    "repghostnet_050",
    "starnet_s050",
    "starnet_s050",
    "mobilevit_xxs",
    "mobilevit_xxs",
    "edgenext_xx_small",
    "edgenext_xx_small",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "hgnetv2_b0",
    "cait_xxs24_224",
    "pvt_v2_b0",
    "pvt_v2_b0",
    "fastvit_t8",
    "efficientvit_b0",
    "repvit_m0_9",
    "efficientvit_m0",
    "hgnetv2_b0",
    "repvit_m0_9",
    "coat_tiny",
    "fastvit_t8",
    "test_nfnet",
    "hgnetv2_b0",
    "inception_next_atto",
    "poolformerv2_s12",
    "rexnet_100",
    "swiftformer_xs",
    "dla46x_c",
    "tiny_vit_5m_224",
    "efficientformerv2_s0",
    "efficientvim_m1",
    "iformer_t",
    "coat_tiny",
    "ese_vovnet19b_slim_dw",
    "legacy_seresnet18",
    "skresnet18",
]
# student, teacher -> what the one line says
CANNOT = {
    ("mixer_s32_224", "resnet10t"): "no stage of the student has 16 positions",
    ("resnet10t", "mixer_s32_224"): "no stage of the teacher has 16 positions",
    ("mobilenetv5_300m_enc", "resnet10t"): "no get_classifier|no classifier|num_classes",
}


def build(name, seed):
    """The model at 64 pixels where it takes them, with no weight exactly 0."""
    torch.manual_seed(seed)
    kwargs = resolve_model_input_args(name, dict(img_size=SIZE))
    model = timm.create_model(name, num_classes=10, **{k: v for k, v in kwargs.items() if k == "img_size"})
    with torch.no_grad():  # zero-initialised branches would hide parameters that get no gradient
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def without_gradient(module, noise=0.0):
    """Trainable parameters whose gradient is at most ``noise`` times the largest one's norm."""
    norms = {
        n: 0.0 if p.grad is None else p.grad.norm().item() for n, p in module.named_parameters() if p.requires_grad
    }
    return {name for name, norm in norms.items() if norm <= noise * max(norms.values())}


@pytest.mark.parametrize(("student", "teacher"), list(zip(PAIRS[::2], PAIRS[1::2], strict=True)))
def test_one_step(student, teacher):
    model = build(student, 0)
    task = DCCDTask(model, build(teacher, 1), nn.CrossEntropyLoss(), input_size=(3, SIZE, SIZE)).train()
    views, target = torch.randn(2, 2, 3, SIZE, SIZE), torch.tensor([1, 5])
    out = task(views, target)
    out["loss"].backward()
    assert set(out) == {"loss", "output", "task_loss", "kd_loss", "contrast_loss", "difference_loss"}
    assert all(value.isfinite().all() for value in out.values())
    assert all(p.grad.isfinite().all() for p in task.trainable_module.parameters() if p.grad is not None)
    idle = without_gradient(task.trainable_module)
    if (
        idle
    ):  # a network has some of its own (attention over one position, a bias before BatchNorm): plain training tells
        alone = build(student, 0).train()
        nn.functional.cross_entropy(alone(views.flatten(0, 1)), target.repeat_interleave(2)).backward()
        assert idle <= {f"student.{name}" for name in without_gradient(alone, noise=1e-6)}
        assert len(idle) < 0.15 * len(list(model.parameters()))


@pytest.mark.parametrize(("student", "teacher"), list(zip(PAIRS[:60:2], PAIRS[1:60:2], strict=True)))
def test_one_step_of_every_feature_method(student, teacher):
    model, frozen = build(student, 0), build(teacher, 1)
    views, target = torch.randn(4, 3, SIZE, SIZE), torch.tensor([1, 5, 0, 2])
    for method in FEATURE_METHODS:
        task = FeatureTask(
            copy.deepcopy(model),
            frozen,
            method,
            nn.CrossEntropyLoss(),
            inputs=Inputs((3, SIZE, SIZE), teacher_img_size="student"),
        )
        out = task.train()(views, target)
        out["loss"].backward()
        assert all(value.isfinite().all() for value in out.values()), method
        gradients = [p.grad for p in task.trainable_module.parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() for g in gradients), method


def test_there_are_forty_pairs_of_many_families():
    pairs = set(zip(PAIRS[::2], PAIRS[1::2], strict=True))
    assert len(pairs) >= 40
    assert len({timm.models.model_entrypoint(name).__module__ for name in PAIRS}) >= 35


@pytest.mark.parametrize(("student", "teacher"), CANNOT)
def test_pairs_that_cannot_work(student, teacher):
    models = [timm.create_model(name) if name.endswith("_enc") else build(name, 0) for name in (student, teacher)]
    with pytest.raises(ValueError, match=CANNOT[student, teacher]) as caught:
        DCCDTask(*models, nn.CrossEntropyLoss(), input_size=(3, SIZE, SIZE))
    assert "\n" not in str(caught.value)
