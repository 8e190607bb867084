"""GPUs by name."""

import types

import pytest
import torch

from dccd_timm.errors import UserError
from dccd_timm.plan.devices import DEVICES, find_device


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H100 80GB", "H100 80GB"),
        ("h100 80 GB", "H100 80GB"),
        ("a100 40gb", "A100 40GB"),
        ("rtx 4090", "RTX 4090 24GB"),
        ("H100 PCIe", "H100 PCIe 80GB"),
        (None, "H100 80GB"),
    ],
)
def test_a_name_is_found_by_its_words(name, found):
    assert find_device(name) == DEVICES[found]


def test_half_precision_is_at_least_as_fast_and_memory_as_the_name_says():
    for name, device in DEVICES.items():
        assert device.lower >= device.float32 > 1e12
        assert 0.85 < device.memory / 2**30 / int(name.split()[-1].removesuffix("GB")) <= 1


def test_the_cpu_has_no_limits():
    device = find_device("CPU")
    assert not device.is_gpu and device.memory is None and device.lower is None


def test_an_unknown_one_is_refused_with_those_that_are_known():
    with pytest.raises(UserError, match="--plan-device H10 is not known: did you mean 'H100 80GB'.*A100 40GB"):
        find_device("H10")


@pytest.mark.parametrize(
    ("name", "speed"), [("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA K80", None)]
)
def test_the_gpu_here_is_taken_with_its_own_memory(name, speed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    properties = types.SimpleNamespace(name=name, total_memory=12345)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: properties)
    device = find_device(None)
    assert (device.name, device.memory, device.lower) == (name, 12345, speed)
