"""The order of images with random access: all ranks together read each image once an epoch, from any batch on."""

from itertools import islice

import pytest
from timm.data.distributed_sampler import RepeatAugSampler

from dccd_timm.data.sampler import EpochSampler
from dccd_timm.data.seeds import permutation


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
    passes = [[index for batch in batches[k : k + 2] for _, index, *_ in batch] for k in (0, 2)]
    assert [sorted(one) for one in passes] == [list(range(8))] * 2 and passes[0] != passes[1]
    copies = [[copy for batch in batches[k : k + 2] for _, _, *copy in batch] for k in (0, 2)]
    assert copies == [[[]] * 8, [[1]] * 8]  # so that an image is not augmented twice alike


@pytest.mark.parametrize(("repeats", "world"), [(3, 1), (3, 2), (3, 4), (2, 2), (1.5, 2), (0.5, 1)])
def test_repeated_augmentation_has_the_structure_of_timms(repeats, world):
    """The same positions of a permutation on each rank, and no copy of an image twice."""
    seen = []
    for rank in range(world):
        timms = RepeatAugSampler(range(512), world, rank, shuffle=False, num_repeats=repeats)
        wanted = list(timms)
        batches = len(wanted) // 8
        ours = EpochSampler(512, 8, batches, 1, rank, world, 0, repeats)
        order = permutation(512, 1, 0, 0).tolist()
        read = [position for batch in islice(ours, batches) for position in batch]
        assert [index for _, index, *_ in read] == [order[slot] for slot in wanted[: len(read)]]
        seen += read
    assert len(seen) == len(set(seen)) and {epoch for epoch, *_ in seen} == {0}


def test_repeated_augmentation_starts_at_any_batch():
    def positions(start):
        return list(islice(EpochSampler(48, 4, 6, 1, 1, 2, start, 3), 12 - start))

    assert positions(7) == positions(0)[7:]
