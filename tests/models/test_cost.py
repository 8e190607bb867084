"""Multiply-accumulates as published, without computing anything."""

import pytest
import timm
from torch import nn

from dccd_timm.errors import UserError
from dccd_timm.models.cost import check_input_size, gmacs


@pytest.mark.parametrize(("name", "published"), [("resnet18", 1.82), ("mobilenetv2_100", 0.30), ("pit_ti_224", 0.71)])
def test_published_costs(name, published):
    model = timm.create_model(name)
    assert gmacs(model, (3, 224, 224)) == pytest.approx(published, rel=0.03)
    assert model.training and next(model.parameters()).device.type == "cpu"


def test_a_teacher_in_half_precision_costs_the_same():
    model = timm.create_model("resnet10t")
    assert gmacs(model.bfloat16(), (3, 64, 64)) == gmacs(model.float(), (3, 64, 64)) > 0


def test_what_cannot_be_counted_is_none():
    class Looks(nn.Module):
        def forward(self, x):
            return x if x.sum().item() else -x

    assert gmacs(Looks(), (3, 8, 8)) is None
    assert gmacs(timm.create_model("resnet18"), (5, 64, 64)) is None


def test_blocks_that_take_a_parameter_as_input_are_counted():
    """CaiT and PiT give their class token to a block; torch's counter asserts that it has no gradient to follow."""
    model = timm.create_model("cait_xxs24_224", depth=1, num_classes=10)
    assert gmacs(model, (3, 224, 224)) > 0
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_failure_of_the_counter_ends_a_run():
    class Asserts(nn.Module):
        def forward(self, x):
            raise AssertionError("Expected gradient function to be set")

    assert gmacs(Asserts(), (3, 8, 8)) is None


def test_a_network_that_fails_for_another_reason_is_one_line_with_its_place():
    model = timm.create_model("test_resnet", channels=(8, 16), layers=(1, 1))
    with pytest.raises(UserError, match=r"test_resnet fails on an image of 3x32x32 \(AttributeError in .*layer3"):
        check_input_size(model, "test_resnet", (3, 32, 32))


def test_a_size_that_a_network_does_not_take_is_one_line():
    model = timm.create_model("halonet26t")
    with pytest.raises(UserError, match=r"halonet26t does not take images of 3x48x48 \(.*: choose another --img-size"):
        check_input_size(model, "halonet26t", (3, 48, 48))
    assert model.training
    check_input_size(model, "halonet26t", (3, 256, 256))
