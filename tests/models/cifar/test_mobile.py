"""MobileNetV2 and ShuffleNets for 32 pixels."""

import pytest
import torch
from torch.nn import functional as F

from tests.models.cifar.reading import check_sizes, check_values, conv, norm

# parameters, entries of the state dict and maps (channels, pixels) for 100 classes, as published
TABLE = {
    "mobilenetv2_050": (812_836, 320, "16,16 12,16 16,8 48,4 160,2"),
    "shufflenetv1": (949_258, 296, "24,32 240,16 480,8 960,4"),
    "shufflenetv2": (1_355_528, 338, "24,32 116,16 232,8 464,4"),
}
# names that identify the public checkpoints
NAMES = {
    "mobilenetv2_050": ["conv1.0.weight", "blocks.1.0.conv.3.weight", "conv2.0.weight", "classifier.0.weight"],
    "shufflenetv1": ["layer1.0.conv3.weight", "linear.weight"],
    "shufflenetv2": ["layer3.3.conv3.weight", "conv2.weight", "linear.weight"],
}
POOLED = {"mobilenetv2_050": 1280, "shufflenetv2": 1024}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_maps_are_those_of_the_table(name):
    check_sizes(name, TABLE[name], NAMES.get(name, []), POOLED.get(name))


def mobile(s, x):
    x = norm(s, "conv1.1", conv(s, "conv1.0", x, stride=2)).relu()
    strides = [1, 1, 2, 2, 1, 2, 1]
    for group, count in enumerate([1, 2, 3, 4, 3, 3, 1]):
        for number in range(count):
            block = f"blocks.{group}.{number}.conv"
            y = norm(s, f"{block}.1", conv(s, f"{block}.0", x)).relu()
            stride = strides[group] if number == 0 else 1
            y = norm(s, f"{block}.4", conv(s, f"{block}.3", y, stride=stride, groups=y.shape[1])).relu()
            y = norm(s, f"{block}.7", conv(s, f"{block}.6", y))
            x = x + y if number else y
    x = norm(s, "conv2.1", conv(s, "conv2.0", x)).relu()
    return x.mean((2, 3)) @ s["classifier.0.weight"].T + s["classifier.0.bias"]


def interleaved(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)


def shuffle1(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for number in range(count):
            block, groups = f"layer{stage}.{number}", 1 if (stage, number) == (1, 0) else 3
            y = interleaved(norm(s, f"{block}.bn1", conv(s, f"{block}.conv1", x, groups=groups)).relu(), groups)
            y = norm(
                s, f"{block}.bn2", conv(s, f"{block}.conv2", y, stride=1 if number else 2, groups=y.shape[1])
            ).relu()
            y = norm(s, f"{block}.bn3", conv(s, f"{block}.conv3", y, groups=3))
            x = (x + y).relu() if number else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1).relu()
    return x.mean((2, 3)) @ s["linear.weight"].T + s["linear.bias"]


def shuffle2(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for number in range(count):
            b = f"layer{stage}.{number}"
            if number == 0:
                left = norm(s, f"{b}.bn1", conv(s, f"{b}.conv1", x, stride=2, groups=x.shape[1]))
                left = norm(s, f"{b}.bn2", conv(s, f"{b}.conv2", left)).relu()
                right = norm(s, f"{b}.bn3", conv(s, f"{b}.conv3", x)).relu()
                right = norm(s, f"{b}.bn4", conv(s, f"{b}.conv4", right, stride=2, groups=right.shape[1]))
                right = norm(s, f"{b}.bn5", conv(s, f"{b}.conv5", right)).relu()
            else:
                half = x.shape[1] // 2
                left, right = x[:, :half], norm(s, f"{b}.bn1", conv(s, f"{b}.conv1", x[:, half:])).relu()
                right = norm(s, f"{b}.bn2", conv(s, f"{b}.conv2", right, groups=half))
                right = norm(s, f"{b}.bn3", conv(s, f"{b}.conv3", right)).relu()
            x = interleaved(torch.cat([left, right], 1), 2)
    x = norm(s, "bn2", conv(s, "conv2", x)).relu()
    return x.mean((2, 3)) @ s["linear.weight"].T + s["linear.bias"]


@pytest.mark.parametrize(
    ("name", "reading"), [("mobilenetv2_050", mobile), ("shufflenetv1", shuffle1), ("shufflenetv2", shuffle2)]
)
def test_values_are_those_of_an_independent_reading(name, reading):
    check_values(name, reading)
