"""Augmentation: what has no effect beside what."""

import pytest

from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mixup-prob 0.5", "no effect: mixup and cutmix are off"),
        ("--mixup-mode elem", "no effect: mixup and cutmix are off"),
        ("--remode const", "no effect: reprob is 0"),
        ("--bce-sum", "no effect: bce_loss is off"),
        ("--no-aug --aa 3a", "no effect: no_aug switches augmentation off"),
        ("--no-aug --train-crop-pad 4", "no effect: no_aug"),
        ("--train-crop-pad 4 --scale 0.5 1", "no effect: train_crop_pad crops in its own way"),
        ("--color-jitter 0 --color-jitter-prob 0.5", "no effect: color_jitter is 0"),
        ("--hflip 2", "--hflip: must be at most 1"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


@pytest.mark.parametrize(
    ("flags", "mixes"),
    [("", False), ("--mixup 0.2", True), ("--cutmix 1", True), ("--cutmix-minmax 0.2 0.8", True)],
)
def test_what_mixes_images(flags, mixes):
    assert load_recipe(flags.split()).mixes is mixes
