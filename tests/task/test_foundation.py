"""Foundation models of timm, with random weights and few blocks, each teach a student without a head for a step.

Three of them run always, the others with ``python -m pytest -m families``.
"""

import pytest
import timm
import torch
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.models.teacher import drop_head
from dccd_timm.models.timm_model import as_timm
from tests.task.small import batch, resnet

# what it is known as -> timm's name, and what makes it small
FAMILIES = {
    "DINOv2": ("vit_small_patch14_dinov2", dict(depth=2, img_size=56)),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", dict(depth=2, img_size=56)),
    "DINOv3": ("vit_small_patch16_dinov3", dict(depth=2, img_size=64)),
    "DINOv3 ConvNeXt": ("convnext_tiny", dict(depths=(1, 1, 1, 1))),
    "DINO, MAE, AugReg in21k": ("vit_base_patch16_224", dict(depth=2, img_size=64)),
    "SigLIP": ("vit_base_patch16_siglip_224", dict(depth=2, img_size=64)),
    "SigLIP, pooled by average": ("vit_base_patch16_siglip_gap_224", dict(depth=2, img_size=64)),
    "CLIP ViT": ("vit_base_patch32_clip_224", dict(depth=2, img_size=128)),
    "CLIP ResNet": ("resnet50_clip_gap", dict()),
    "CLIP ResNet, attention pool": ("resnet50_clip", dict()),
    "MobileCLIP": ("fastvit_mci0", dict()),
    "ViTamin": ("vitamin_small_224", dict(img_size=64)),
    "EVA-02": ("eva02_tiny_patch14_224", dict(depth=2, img_size=56)),
    "EVA-02 CLIP": ("eva02_base_patch16_clip_224", dict(depth=2, img_size=64)),
    "Perception Encoder, core": ("vit_pe_core_base_patch16_224", dict(depth=2, img_size=64)),
    "Perception Encoder, spatial": ("vit_pe_spatial_base_patch16_512", dict(depth=2, img_size=64)),
    "Perception Encoder, language": ("vit_pe_lang_large_patch14_448", dict(depth=2, img_size=56)),
    "Sapiens 2": ("vit_base_patch16_sapiens2", dict(img_size=64)),
    "LingBot": ("vit_base_patch16_lingbot", dict(depth=2, img_size=64)),
    "AIMv2": ("aimv2_large_patch14_224", dict(depth=2, img_size=56)),
    "RADIO v3": ("vit_base_patch16_radio_v3", dict(depth=2, img_size=64)),
    "TIPSv2": ("vit_base_patch14_reg1_tipsv2", dict(depth=2, img_size=56)),
    "InternViT": ("vit_intern300m_patch14_448", dict(depth=2, img_size=56)),
    "NaFlex SigLIP 2": ("naflexvit_base_patch16_siglip", dict(depth=2, img_size=64)),
    "NaFlex RADIO": ("naflexvit_base_patch16_radio_v3", dict(depth=2, img_size=64)),
    "Hiera MAE": ("hiera_tiny_224", dict(img_size=64)),
    "SAM": ("samvit_base_patch16", dict(depth=2, img_size=64)),
    "SAM 2": ("sam2_hiera_tiny", dict()),
    "Florence-2 DaViT": ("davit_base_fl", dict(depths=(1, 1, 1, 1))),
    "FocalNet": ("focalnet_tiny_srf", dict()),
    "SEER RegNet": ("regnety_002", dict()),
    "ViT-R50 in21k": ("vit_base_r50_s16_224", dict(depth=2, img_size=64)),
    "Gemma 4": ("gemma4_vit_167m", dict(depth=2, img_size=96)),
    "Qwen 3 vision": ("qwen3_vit_88m", dict(depth=4, img_size=64)),
    "DeepSeek vision": ("deepseek_vit_412m", dict(depth=2, img_size=112)),
    "Gemma 3n": ("mobilenetv5_300m", dict()),
}
# Encoders that do not pool: their maps teach a student with a head.
MAPS_ONLY = {
    "Gemma 4 encoder": ("gemma4_vit_167m_enc", dict(depth=2, img_size=96)),
    "Qwen 3 vision encoder": ("qwen3_vit_88m_enc", dict(depth=4, img_size=64)),
    "DeepSeek vision encoder": ("deepseek_vit_412m_enc", dict(depth=2, img_size=112)),
}
ALWAYS = ("DINOv2 with registers", "DINOv3", "SigLIP")


def headless(name, kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    return drop_head(model, name) if as_timm(model).num_classes else model


def step(student, teacher, size, **options):
    task = DCCDTask(student, teacher, nn.CrossEntropyLoss(), input_size=(3, size, size), **options).train()
    result = task(*batch(size=size, count=3))
    result["loss"].backward()
    assert result["loss"].isfinite() and task.term_weights["contrast_loss"] == 5
    return task


@pytest.mark.parametrize("family", [
    pytest.param(family, marks=[] if family in ALWAYS else [pytest.mark.slow, pytest.mark.families]) for family in FAMILIES
])  # fmt: skip
def test_a_foundation_model_teaches_a_student_without_a_head(family):
    name, kwargs = FAMILIES[family]
    teacher, student = headless(name, kwargs), resnet(0, num_classes=0)
    task = step(student, teacher, 64, task_loss_weight=0.0)
    assert all(p.grad is not None for p in task.trainable_module.parameters())
    assert task.teacher.embeds and len(task.trainable_module.channel_maps) == 2


@pytest.mark.slow
@pytest.mark.families
@pytest.mark.parametrize("family", MAPS_ONLY)
def test_an_encoder_that_does_not_pool_teaches_a_student_with_a_head(family):
    name, kwargs = MAPS_ONLY[family]
    step(resnet(0), headless(name, kwargs), 64)
    with pytest.raises(ValueError, match="does not pool its features: choose a timm classifier"):
        step(resnet(0, num_classes=0), headless(name, kwargs), 64, task_loss_weight=0.0)
