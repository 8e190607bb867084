"""What all networks of the benchmark have: timm's interface, public checkpoints, distillation."""

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

import pytest
import timm
import torch
from timm.models import get_model_input_config

from dccd_timm import DCCDTask
from dccd_timm.models.teacher import load_teacher
from tests.models.cifar import test_mobile, test_resnet, test_vgg, test_wrn


def test_there_are_22_networks():
    tables = (test_mobile.TABLE, test_resnet.TABLE, test_vgg.TABLE, test_wrn.TABLE)
    names = {f"cifar_{name}" for table in tables for name in table}
    assert names == set(timm.list_models("cifar_*")) and len(names) == 22


def _benchmark_figures():
    """Mean and standard deviation of each layer's first weights, by network: those of the benchmark's own modules.

    Measured on RepDistiller (commit b84f547) with 100 classes, over seeds 0 to 19.
    """
    figures = defaultdict(dict)
    with (Path(__file__).parent / "initial_weights.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            figures[row["network"]][row["layer"]] = float(row["mean"]), float(row["std"])
    return figures


def _check_start(name, layer, weight, mean, std):
    """A constant exactly; else within 5 standard errors of this draw of N weights and of the 20 that were measured."""
    error = 5 * std * math.sqrt((1 + 1 / 20) / weight.numel()) + 1e-4 * std
    found_mean, found_std = weight.double().mean().item(), weight.double().std(correction=0).item()
    assert abs(found_mean - mean) <= error, f"{name} {layer}: mean {found_mean} in place of {mean}"
    assert abs(found_std - std) <= error, f"{name} {layer}: std {found_std} in place of {std}"


@pytest.mark.parametrize(("name", "figures"), _benchmark_figures().items())
def test_first_weights_are_drawn_as_the_benchmark_draws_them(name, figures):
    torch.manual_seed(1)
    layers = dict(timm.create_model(f"cifar_{name}").named_parameters())
    assert layers.keys() == figures.keys()
    for layer, weight in layers.items():
        _check_start(name, layer, weight.detach(), *figures[layer])


def test_the_figures_are_of_all_networks():
    assert {f"cifar_{name}" for name in _benchmark_figures()} == set(timm.list_models("cifar_*"))


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2_050", "shufflenetv1"])
def test_a_new_head_is_drawn_as_the_first_one(name):
    model, figures = timm.create_model(f"cifar_{name}", num_classes=0), _benchmark_figures()[name]
    torch.manual_seed(2)
    model.reset_classifier(100)
    head = timm.get_pretrained_cfg(f"cifar_{name}").classifier
    for part in ("weight", "bias"):
        layer = f"{head}.{part}"
        _check_start(name, layer, model.get_parameter(layer).detach(), *figures[layer])


@pytest.mark.parametrize("name", ["resnet8", "resnet50", "wrn_16_1", "vgg8", "mobilenetv2_050", "shufflenetv2"])
def test_other_classes_and_channels(name):
    model = timm.create_model(f"cifar_{name}", num_classes=7, in_chans=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert get_model_input_config(model)["input_size"] == (1, 32, 32)
    model.reset_classifier(3)
    assert model.num_classes == 3 and model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    assert timm.create_model(f"cifar_{name}", num_classes=0)(torch.randn(2, 3, 32, 32)).shape[1] == model.num_features
    config = timm.data.resolve_model_data_config(timm.create_model(f"cifar_{name}"))
    assert config["input_size"] == (3, 32, 32) and config["mean"] == (0.5071, 0.4867, 0.4408)


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet32x4"), ("shufflenetv2", "wrn_40_2"), ("vgg8", "resnet50")]
)
def test_a_pair_of_them_can_be_distilled(student, teacher):
    pair = (timm.create_model(f"cifar_{n}", num_classes=5) for n in (student, teacher))
    task = DCCDTask(*pair, device=torch.device("cpu"), verbose=False)
    loss = task(torch.randn(4, 2, 3, 32, 32), torch.arange(4))["loss"]
    loss.backward()
    assert all(p.grad is not None for p in task.trainable_module.parameters())


@pytest.mark.parametrize("kind", ["ckpt_epoch_240.pth", "resnet8_last.pth"])
def test_a_public_checkpoint_is_a_teacher(kind, tmp_path):
    """In the benchmark's two layouts, from a torch so old that it did not count batches."""
    model = timm.create_model("cifar_resnet8")
    weights = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    kept = {"epoch": 240, "model": dict(weights), "accuracy": torch.tensor(59.5), "optimizer": {"state": {}}}
    if "last" in kind:
        kept = {"opt": argparse.Namespace(model="resnet8", lr=0.05), "model": dict(weights), "optimizer": {"state": {}}}
    torch.save(kept, tmp_path / kind)
    teacher = load_teacher("cifar_resnet8", str(tmp_path / kind), 100)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images), model.eval()(images))
