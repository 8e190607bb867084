"""Which stages are compared, and logits and maps from one forward."""

import pytest
import timm
import torch
from torch import nn

from dccd_timm.models.taps import (
    check_classifier,
    check_tappable,
    choose_stages,
    probe,
    single_head,
    tapped_forward,
    tapped_maps,
)

SHAPES = [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]


@pytest.mark.parametrize(
    ("wanted", "pooled", "stages"),
    [(None, False, [2]), (None, True, [3]), ((-1,), False, [3]), ((-1, -3), False, [1, 3]), ((0, -1), False, [0, 3])],
)
def test_stages(wanted, pooled, stages):
    assert choose_stages(SHAPES, wanted, "student", pooled) == stages


@pytest.mark.parametrize("wanted", [(-5,), (4,), (-1, -1), (3, -1)])
def test_stages_that_do_not_exist(wanted):
    with pytest.raises(ValueError, match="the teacher has 4 stages, -1 to -4"):
        choose_stages(SHAPES, wanted, "teacher")


def test_small_maps_are_refused():
    with pytest.raises(ValueError, match="no stage of the student has 16 positions"):
        choose_stages([(8, 3, 3)], None, "student")


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "swin_tiny_patch4_window7_224"])
def test_logits_and_maps_are_those_of_the_model(name):
    size = 224 if name.startswith("swin") else 64
    kwargs = dict(img_size=64) if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=5, **kwargs).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        logits, maps = tapped_forward(model, images, [0, 1])
        torch.testing.assert_close(logits, model(images))
        assert tapped_forward(model, images, [])[1] == []
    shapes = probe(model, (3, size, size), "student")
    assert [tuple(m.shape[1:]) for m in maps] == shapes[:2]
    assert [width for width, _, _ in shapes] == [stage["num_chs"] for stage in model.feature_info]


def test_probing_leaves_the_mode_alone_and_explains_a_failure():
    model = timm.create_model("resnet10t", num_classes=5).train()
    probe(model, (3, 64, 64), "student")
    assert model.training
    with pytest.raises(ValueError, match=r"student ResNet gives no feature maps for images of \(4, 64, 64\)") as caught:
        probe(model, (4, 64, 64), "student")
    assert "\n" not in str(caught.value) and model.training


def test_models_that_cannot_be_tapped():
    with pytest.raises(ValueError, match="teacher Linear has no forward_intermediates"):
        check_tappable(nn.Linear(2, 2), "teacher")
    with pytest.raises(ValueError, match="teacher Linear has no get_classifier"):
        check_classifier(nn.Linear(2, 2), "teacher")
    with pytest.raises(ValueError, match="no classifier"):
        check_classifier(timm.create_model("resnet10t", num_classes=0), "student")


def test_a_model_without_a_head_has_the_same_maps():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=5, img_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        _, maps = tapped_forward(model, images, [0, 2])
        shapes = probe(model, (3, 32, 32), "teacher")
        model.reset_classifier(0)
        alone = tapped_maps(model, images, [0, 2])
    assert all(torch.equal(a, b) for a, b in zip(maps, alone, strict=True))
    assert probe(model, (3, 32, 32), "teacher") == shapes


def test_two_heads_answer_with_their_mean():
    model = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, img_size=32, depth=1)
    single_head(model)
    model.train()
    images = torch.randn(2, 3, 32, 32)
    final = model.forward_features(images)
    both = (model.head(final[:, 0]) + model.head_dist(final[:, 1])) / 2
    torch.testing.assert_close(tapped_forward(model, images, [0])[0], both)
