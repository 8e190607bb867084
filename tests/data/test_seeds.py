"""Draws depend on the numbers that they are drawn from, and on nothing else."""

import numpy as np
import torch
from timm.data import create_transform

from dccd_timm.data.seeds import hash_numbers, permutation, seeded
from tests.conftest import picture


def test_seeded_draws_the_same_again_and_leaves_the_main_process_alone():
    transform = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5", use_prefetcher=True)
    image = picture(2, 1)

    def draw(*numbers):
        with seeded(*numbers):
            return transform(image)

    torch.manual_seed(0), np.random.seed(0)
    expected = torch.rand(3), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    first, other = draw(1, 2, 3), draw(1, 2, 4)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]
    assert torch.equal(first, draw(1, 2, 3)) and not torch.equal(first, other)


def test_a_hash_depends_on_each_number_and_its_place():
    hashes = {hash_numbers(*numbers) for numbers in [(), (0,), (1,), (0, 1), (1, 0), (-1,), (2**40,)]}
    assert len(hashes) == 7 and all(0 <= value < 2**63 for value in hashes)
    assert hash_numbers(42, 0) == 127677007807210305  # the same on every machine, for ever


def test_a_permutation_depends_on_its_numbers_alone():
    torch.manual_seed(0)
    first = permutation(20, 3, 4)
    torch.manual_seed(1)
    assert torch.equal(first, permutation(20, 3, 4)) and not torch.equal(first, permutation(20, 3, 5))
    assert sorted(first.tolist()) == list(range(20))
