"""The student with its channel maps: what is tapped, and how timm's optimizers group its parameters."""

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.task.trainable import TappedStudent, channel_map
from tests.task.small import batch, resnet


@pytest.mark.parametrize("where", ["spatial", "pooled"])
@pytest.mark.parametrize("stages", [None, (-1,), (-1, -2)])
def test_stages_and_places_of_the_contrast(where, stages):
    task = DCCDTask(resnet(0), resnet(1, (16, 24, 32)), nn.CrossEntropyLoss(), contrast_where=where,
                    contrast_stages=stages, input_size=(3, 96, 96)).train()  # fmt: skip
    _, maps = task.trainable_module(batch(size=96)[0][:, 0])
    assert len(maps) == len(stages or (0,))
    if where == "pooled":
        assert all(m.shape[2:] == (1, 1) for m in maps)
    if stages is None and where == "spatial":
        assert maps[0].shape[2] * maps[0].shape[3] >= 16
    task(*batch(size=96))["loss"].backward()


def test_timm_optimizer_groups_of_the_student():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=3)
    task = DCCDTask(vit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64))
    groups = create_optimizer_v2(
        task.trainable_module, "adamw", lr=1e-3, weight_decay=0.1, layer_decay=0.7
    ).param_groups
    assert len({g["lr_scale"] for g in groups}) == 5  # embedding, 3 blocks, head with channel map
    undecayed = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert id(vit.pos_embed) in undecayed and id(vit.cls_token) in undecayed


def test_equal_widths_need_no_map():
    student = TappedStudent(resnet(0), [2, 3], [(4, 4), (2, 2)], [channel_map(16, 16), channel_map(24, 32)])
    assert isinstance(student.channel_maps[0], nn.Identity)
    assert student.channel_maps[1].weight.shape == (32, 24, 1, 1)
    logits, maps = student(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 10)
    assert [m.shape for m in maps] == [(2, 16, 4, 4), (2, 32, 2, 2)]
