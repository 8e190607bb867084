"""A network's class names, and its classes in another order."""

import json

import pytest
import timm
import torch
from torch import nn

from dccd_timm.errors import UserError
from dccd_timm.models.classes import class_names, reorder_classes


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        "test_convnext",
        "deit_tiny_distilled_patch16_224",
        "levit_128s",
        "test_byobnet",
        "cifar_resnet8",
        "mobilenetv3_small_050",
    ],
)
def test_the_classes_of_every_kind_of_classifier(name):
    import dccd_timm.models  # noqa: F401  # registers the CIFAR networks

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4).eval()
    image = torch.randn(2, *timm.models.get_model_input_config(model)["input_size"])
    with torch.no_grad():
        before = model(image)
        reorder_classes(model, [2, 0, 3, 1], "it")
        torch.testing.assert_close(model(image), before[:, [2, 0, 3, 1]])


def test_a_classifier_that_cannot_be_reordered():
    model = timm.create_model("test_resnet", num_classes=4)
    model.fc = nn.Sequential(model.fc, nn.LayerNorm(4))
    nn.init.normal_(model.fc[1].weight)
    with pytest.raises(UserError, match="it has its classes in another order than the data set, and its classifier"):
        reorder_classes(model, [2, 0, 3, 1], "it")


def test_names_come_from_the_configuration_or_from_beside_the_checkpoint(tmp_path):
    model = timm.create_model("test_resnet", num_classes=2)
    assert class_names(model) is None and class_names(model, str(tmp_path / "w.safetensors")) is None
    model.pretrained_cfg["label_names"] = {"1": "b", "0": "a"}
    assert class_names(model) == ["a", "b"]
    (tmp_path / "config.json").write_text(json.dumps({"label_names": ["x", "y"]}))
    assert class_names(model, str(tmp_path / "w.safetensors")) == ["x", "y"]
    model.pretrained_cfg["label_names"] = ["of", "another", "head"]
    assert class_names(model) is None
