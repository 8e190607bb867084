"""The order in which training reads images with random access."""

import math
from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import Sampler

from dccd_timm.data.seeds import permutation


class EpochSampler(Sampler[list[tuple[int, ...]]]):
    """Endless batches of (epoch, index): each epoch a new permutation, each rank its own part of every batch.

    What comes a second time in an epoch is (epoch, index, 1), and so on, so that it can be augmented in another way.
    With repeats, an epoch of the same length has fewer images, and the copies of one go to neighbouring ranks: repeated
    augmentation (Hoffer et al., "Augment your batch", CVPR 2020; Touvron et al., DeiT, ICML 2021), as timm's
    RepeatAugSampler orders it.

    Args:
        size: images of the data set.
        batch: images of a batch of one rank.
        batches: batches of an epoch.
        seed: of the permutations.
        rank, world: this process among all.
        start: batches to leave out: the batches of each epoch that is complete, and those of an interrupted one.
        repeats: how often each image comes in a row; below 1, images are left out.
    """

    def __init__(
        self, size: int, batch: int, batches: int, seed: int, rank: int, world: int, start: int, repeats: float = 1
    ) -> None:
        self.size, self.batch, self.batches = size, batch, batches
        self.seed, self.rank, self.world, self.start, self.repeats = seed, rank, world, start, repeats

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        first_epoch, done = divmod(self.start, self.batches)
        slots, copies = self._one_pass()
        wanted = self.batches * self.batch * self.world
        passes = -(-wanted // len(slots))
        number_of_copy = torch.cat([copies + number * (int(copies.max()) + 1) for number in range(passes)])
        own = slice(self.rank, wanted, self.world)
        numbers = number_of_copy[own].tolist()
        for epoch in count(first_epoch):
            orders = [permutation(self.size, self.seed, epoch, number)[slots] for number in range(passes)]
            order = torch.cat(orders)[own].tolist()
            for first in range(done * self.batch, len(order), self.batch):
                part = slice(first, first + self.batch)
                yield [
                    (epoch, index, number) if number else (epoch, index)
                    for index, number in zip(order[part], numbers[part], strict=True)
                ]
            done = 0

    def _one_pass(self) -> tuple[Tensor, Tensor]:
        """For each step of a pass its image's rank in the permutation, and which copy of the image it is."""
        steps = torch.arange(math.ceil(self.size * self.repeats))
        slots = (steps.double() / self.repeats).long()
        return slots, steps - torch.searchsorted(slots, slots)
