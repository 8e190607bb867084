"""Every recipe trains, its commands are real, and those of the benchmark are its protocol."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dccd_timm.engine.optim import build_schedule
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.run.train import train
from tests.conftest import ROOT
from tests.programs.recipes.small import shrink

CIFAR = sorted((ROOT / "recipes" / "cifar100").glob("*.yaml"))
OTHERS = sorted(
    path for data in ("imagenet", "fashion-mnist", "emoji") for path in (ROOT / "recipes" / data).glob("*.yaml")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize("recipe", [*CIFAR, *OTHERS], ids=lambda path: path.stem)
def test_it_trains(recipe, folder, fresh_accelerator, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were missing: pictures have tests of their own
    settings = load_recipe(["-c", str(recipe), *shrink(recipe, folder)])
    train(settings, HubPublisher(settings))
    report = json.loads((folder / "out" / recipe.stem / "report" / "report.json").read_text())
    assert report["method"] == "dccd" and report["views_seen"] == 2 * 4 * 2
    assert report["student"]["agreement"] is not None


@pytest.mark.parametrize("recipe", [*CIFAR, *OTHERS], ids=lambda path: path.stem)
def test_its_commands_are_its_own_and_load(recipe):
    head = recipe.read_text().split("\ndataset:")[0]
    commands = re.findall(r"^# +(?:accelerate launch --num_processes 8|python) (train\.py .*)$", head, re.MULTILINE)
    loaded = [load_recipe(shlex.split(command)[1:]) for command in commands]
    assert all(shlex.split(command)[2] == str(recipe.relative_to(ROOT)) for command in commands)
    methods = {(settings.kd_distill_type, settings.dccd_views) for settings in loaded}
    assert methods >= {("dccd", 2), ("logit", 2), ("none", 2), ("none", 1)}
    for word in ("Hardware:", "Hours:", "Settings:", "Published top-1"):
        assert word in head
    assert f"]({recipe.parent.name}/{recipe.name})" in (ROOT / "recipes" / "README.md").read_text()


PAIRS = [
    "wrn_40_2-wrn_16_2",
    "wrn_40_2-wrn_40_1",
    "resnet56-resnet20",
    "resnet110-resnet20",
    "resnet110-resnet32",
    "resnet32x4-resnet8x4",
    "vgg13-vgg8",
    "vgg13-mobilenetv2_050",
    "resnet50-mobilenetv2_050",
    "resnet50-vgg8",
    "resnet32x4-shufflenetv1",
    "resnet32x4-shufflenetv2",
    "wrn_40_2-shufflenetv1",
]


def rates(settings, epochs):
    """The learning rate of each epoch, from the scheduler that trains."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=settings.lr)
    schedule = build_schedule(optimizer, settings, 10)
    assert schedule.num_epochs == epochs
    lrs = []
    for epoch in range(epochs):
        lrs.append(optimizer.param_groups[0]["lr"])
        schedule.end_epoch(epoch, None)
    return lrs


def test_cifar100_is_the_benchmarks_protocol():
    """Tian et al., ICLR 2020, section 4, and the settings of its public code."""
    assert sorted(path.stem for path in CIFAR) == sorted(PAIRS)
    for path in CIFAR:
        settings = load_recipe(["-c", str(path)])
        teacher, student = path.stem.split("-")
        assert (settings.kd_model_name, settings.model) == (f"cifar_{teacher}", f"cifar_{student}")
        base = 0.01 if student.startswith(("mobilenet", "shufflenet")) else 0.05
        lrs = rates(settings, 240)
        for first, last, factor in ((0, 149, 1), (150, 179, 0.1), (180, 209, 0.01), (210, 239, 0.001)):
            assert lrs[first] == pytest.approx(base * factor) and lrs[last] == pytest.approx(base * factor)
        assert (settings.batch_size, settings.opt, settings.momentum, settings.weight_decay) == (
            64,
            "momentum",
            0.9,
            5e-4,
        )
        assert settings.opt_kwargs == {"filter_bias_and_bn": False}
        assert (settings.train_crop_pad, settings.hflip, settings.color_jitter, settings.smoothing) == (4, 0.5, 0, 0)
        assert (settings.kd_temperature, settings.task_loss_weight, settings.distill_loss_weight) == (4, 0.1, 0.9)
        assert Path(settings.kd_teacher_checkpoint).name == "ckpt_epoch_240.pth"


def test_the_100_epoch_protocol_of_imagenet():
    for name in ("resnet34-resnet18", "resnet50-mobilenetv1", "deit_tiny-resnet18"):
        settings = load_recipe(["-c", str(ROOT / "recipes" / "imagenet" / f"{name}.yaml"), "--lr", "0.1"])
        lrs = rates(settings, 100)
        for first, last, factor in ((0, 29, 1), (30, 59, 0.1), (60, 89, 0.01), (90, 99, 0.001)):
            assert lrs[first] == pytest.approx(0.1 * factor) and lrs[last] == pytest.approx(0.1 * factor)
        assert (settings.kd_temperature, settings.task_loss_weight, settings.distill_loss_weight) == (1, 0.5, 0.5)
