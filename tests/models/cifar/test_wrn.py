"""Wide residual networks for 32 pixels."""

import pytest

from tests.models.cifar.reading import check_sizes, check_values, conv, norm

STEM16 = "16,32 16,32 32,16 64,8"
# parameters, entries of the state dict and maps (channels, pixels) for 100 classes, as published
TABLE = {
    "wrn_16_1": (180_916, 82, STEM16),
    "wrn_16_2": (703_284, 83, "16,32 32,32 64,16 128,8"),
    "wrn_40_1": (569_780, 226, STEM16),
    "wrn_40_2": (2_255_156, 227, "16,32 32,32 64,16 128,8"),
}
# names that identify the public checkpoints
NAMES = {
    "wrn_40_2": ["block1.layer.0.convShortcut.weight", "block3.layer.5.conv2.weight", "bn1.bias", "fc.weight"],
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_maps_are_those_of_the_table(name):
    check_sizes(name, TABLE[name], NAMES.get(name, []))


def wide(s, x):
    x = conv(s, "conv1", x)
    for stage in (1, 2, 3):
        for number in (0, 1):
            block, stride = f"block{stage}.layer.{number}", 2 if stage > 1 and number == 0 else 1
            y = norm(s, f"{block}.bn1", x).relu()
            x = conv(s, f"{block}.convShortcut", y, stride=stride) if f"{block}.convShortcut.weight" in s else x
            y = norm(s, f"{block}.bn2", conv(s, f"{block}.conv1", y, stride=stride)).relu()
            x = x + conv(s, f"{block}.conv2", y)
    return norm(s, "bn1", x).relu().mean((2, 3)) @ s["fc.weight"].T + s["fc.bias"]


@pytest.mark.parametrize(("name", "reading"), [("wrn_16_2", wide)])
def test_values_are_those_of_an_independent_reading(name, reading):
    check_values(name, reading)
