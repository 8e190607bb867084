"""VGG for 32 pixels."""

import pytest
from torch.nn import functional as F

from tests.models.cifar.reading import check_sizes, check_values, conv, norm

VGG = "64,32 128,16 256,8 512,4 512,4"
# parameters, entries of the state dict and maps (channels, pixels) for 100 classes, as published
TABLE = {
    "vgg8": (3_965_028, 37, VGG),
    "vgg11": (9_277_284, 58, VGG),
    "vgg13": (9_462_180, 72, VGG),
    "vgg16": (14_774_436, 93, VGG),
    "vgg19": (20_086_692, 114, VGG),
}
# names that identify the public checkpoints
NAMES = {
    "vgg13": ["block0.0.bias", "block0.3.weight", "block4.4.running_mean", "classifier.weight"],
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_maps_are_those_of_the_table(name):
    check_sizes(name, TABLE[name], NAMES.get(name, []))


def vgg(s, x):
    for block in range(5):
        x = norm(s, f"block{block}.1", conv(s, f"block{block}.0", x)).relu()
        x = F.max_pool2d(x, 2) if block < 3 else x
    return x.mean((2, 3)) @ s["classifier.weight"].T + s["classifier.bias"]


@pytest.mark.parametrize(("name", "reading"), [("vgg8", vgg)])
def test_values_are_those_of_an_independent_reading(name, reading):
    check_values(name, reading)
