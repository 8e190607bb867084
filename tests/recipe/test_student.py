"""The student: what has no effect, and what contradicts."""

import pytest

from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model-ema-decay 0.9", "no effect: model_ema is off"),
        ("--model-ema --model-ema-decay 2", "must be at most 1"),
        ("--in-chans 1 --input-size 3 32 32", "contradicts input_size"),
        ("--img-size 64 --input-size 3 32 32", "give one of them"),
        ("--mean 0.5 0.5", "mean needs 1 or 3 values"),
        ("--in-chans 1 --std 0.2 0.2 0.2", "std needs 1 or 1 values"),
        ("--split-bn", "set dccd_views to 2 or more"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)
