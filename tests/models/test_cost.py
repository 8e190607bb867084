"""Multiply-accumulates as published, without computing anything."""

import pytest
import timm
from torch import nn

from dccd_timm.models.cost import gmacs


@pytest.mark.parametrize(("name", "published"), [("resnet18", 1.82), ("mobilenetv2_100", 0.30)])
def test_published_costs(name, published):
    model = timm.create_model(name)
    assert gmacs(model, (3, 224, 224)) == pytest.approx(published, rel=0.03)
    assert model.training and next(model.parameters()).device.type == "cpu"


def test_what_cannot_be_counted_is_none():
    class Looks(nn.Module):
        def forward(self, x):
            return x if x.sum().item() else -x

    assert gmacs(Looks(), (3, 8, 8)) is None
    assert gmacs(timm.create_model("resnet18"), (5, 64, 64)) is None
