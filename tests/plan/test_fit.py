"""Which batch fits, for a step whose memory is known."""

import pytest

from dccd_timm.plan.fit import Batch, largest_batch, same_update, usable


def memory_of(size, accumulated):
    """1,000 bytes, 10 for each image, and 100 of gradients from batch to batch of an update."""
    return 1000 + 10 * size + 100 * (accumulated > 1)


@pytest.mark.parametrize(("limit", "largest"), [(3560, 256), (3579, 256), (3580, 258), (999, 0), (1011, 0)])
def test_the_largest_batch_is_even(limit, largest):
    assert largest_batch(memory_of, 256, 1, limit) == largest


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (3000, Batch(128, 2, 2380)),
        (2380, Batch(128, 2, 2380)),
        (2379, Batch(64, 4, 1740)),  # without what accumulation keeps, 128 would fit
        (1120, Batch(2, 128, 1120)),
        (1110, None),  # a single image cannot be mixed
        (900, None),
    ],
)
def test_a_smaller_batch_keeps_the_images_of_the_update(limit, found):
    assert same_update(memory_of, 256, 1, limit) == found
    assert found is None or found.size * found.accumulated == 256


def test_an_odd_batch_and_an_accumulation_that_is_there_already():
    assert same_update(memory_of, 15, 2, 1160) == Batch(5, 6, 1150)
    assert same_update(memory_of, 1, 1, 1) is None


def test_a_tenth_and_a_gibibyte_are_left_to_the_gpu():
    assert usable(81 * 2**30) == 72 * 2**30
