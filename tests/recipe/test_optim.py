"""Optimizer and schedule: what has no effect beside what."""

import pytest

from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lr 0.1 --lr-base 0.2", "no effect: lr overrides it"),
        ("--lr 0.1 --lr-base-scale linear", "no effect: lr overrides it"),
        ("--clip-mode agc", "no effect: clip_grad is not set"),
        ("--layer-decay-min-scale 0.1", "no effect: layer_decay is not set"),
        ("--grad-accum-steps 0", "must be at least 1"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)
