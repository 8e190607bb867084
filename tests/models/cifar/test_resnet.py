"""ResNets for 32 pixels."""

import pytest

from tests.models.cifar.reading import check_sizes, check_values, conv, norm

STEM16 = "16,32 16,32 32,16 64,8"
# parameters, entries of the state dict and maps (channels, pixels) for 100 classes, as published
TABLE = {
    "resnet8": (83_892, 56, STEM16),
    "resnet14": (181_108, 92, STEM16),
    "resnet20": (278_324, 128, STEM16),
    "resnet32": (472_756, 200, STEM16),
    "resnet44": (667_188, 272, STEM16),
    "resnet56": (861_620, 344, STEM16),
    "resnet110": (1_736_564, 668, STEM16),
    "resnet8x4": (1_233_540, 62, "32,32 64,32 128,16 256,8"),
    "resnet32x4": (7_433_860, 206, "32,32 64,32 128,16 256,8"),
    "resnet50": (23_705_252, 320, "64,32 256,32 512,16 1024,8 2048,4"),
}
# names that identify the public checkpoints
NAMES = {
    "resnet56": ["conv1.weight", "layer1.8.bn2.weight", "layer2.0.downsample.0.weight", "fc.bias"],
    "resnet8x4": ["layer1.0.downsample.1.running_var"],
    "resnet50": ["layer1.0.shortcut.0.weight", "layer4.2.conv3.weight", "linear.weight"],
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_maps_are_those_of_the_table(name):
    check_sizes(name, TABLE[name], NAMES.get(name, []))


def resnet(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage in (1, 2, 3):
        block = f"layer{stage}.0"
        y = norm(s, f"{block}.bn1", conv(s, f"{block}.conv1", x, stride=1 if stage == 1 else 2)).relu()
        y = norm(s, f"{block}.bn2", conv(s, f"{block}.conv2", y))
        if f"{block}.downsample.0.weight" in s:
            x = norm(s, f"{block}.downsample.1", conv(s, f"{block}.downsample.0", x, stride=1 if stage == 1 else 2))
        x = (x + y).relu()
    return x.mean((2, 3)) @ s["fc.weight"].T + s["fc.bias"]


@pytest.mark.parametrize(("name", "reading"), [("resnet8", resnet), ("resnet8x4", resnet)])
def test_values_are_those_of_an_independent_reading(name, reading):
    check_values(name, reading)
