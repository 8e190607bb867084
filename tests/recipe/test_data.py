"""Splits and batches: what has no effect, and what is out of range."""

import pytest

from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--val-split= --validation-batch-size 8", "no effect: val_split is empty"),
        ("--data-errors ignore", "must be one of skip, raise"),
        ("--data-timeout 0", "must be at least 1"),
        ("--mixup 0.2 -b 31", "batch_size 31 must be even"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)
