"""The order of images with random access: all ranks together read each image once an epoch, from any batch on."""

from itertools import islice

import pytest

from dccd_timm.data.sampler import EpochSampler


def read(start=0, batches=12, seed=1, size=48, per_epoch=6, rank=0, world=2):
    sampler = EpochSampler(size, 4, per_epoch, seed, rank, world, start)
    return list(islice(sampler, batches))


def test_the_ranks_read_each_image_once_an_epoch():
    ranks = [read(rank=rank) for rank in range(2)]
    for epoch in range(2):
        images = [image for batches in ranks for batch in batches[6 * epoch : 6 * epoch + 6] for image in batch]
        assert sorted(images) == [(epoch, index) for index in range(48)]
    assert [index for _, index in ranks[0][0]] != [index for _, index in ranks[0][6]]  # a new order each epoch
    assert read(seed=2) != ranks[0]


@pytest.mark.parametrize("start", [1, 5, 6, 11])
def test_it_starts_at_any_batch(start):
    assert read(start, batches=12 - start) == read()[start:]


def test_an_epoch_longer_than_the_data_repeats_it_in_other_orders():
    batches = read(size=8, per_epoch=4, world=1, batches=4)
    passes = [[index for batch in batches[k : k + 2] for _, index in batch] for k in (0, 2)]
    assert [sorted(one) for one in passes] == [list(range(8))] * 2 and passes[0] != passes[1]
