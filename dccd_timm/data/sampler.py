"""The order in which training reads images with random access."""

from collections.abc import Iterator
from itertools import count

import torch
from torch.utils.data import Sampler

from dccd_timm.data.seeds import permutation


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index): each epoch a new permutation, each rank its own part of every batch.

    Args:
        size: images of the data set.
        batch: images of a batch of one rank.
        batches: batches of an epoch.
        seed: of the permutations.
        rank, world: this process among all.
        start: batches to leave out: the batches of each epoch that is complete, and those of an interrupted one.
    """

    def __init__(self, size: int, batch: int, batches: int, seed: int, rank: int, world: int, start: int) -> None:
        self.size, self.batch, self.batches = size, batch, batches
        self.seed, self.rank, self.world, self.start = seed, rank, world, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch, done = divmod(self.start, self.batches)
        for epoch in count(first_epoch):
            wanted = self.batches * self.batch * self.world
            passes = -(-wanted // self.size)
            orders = [permutation(self.size, self.seed, epoch, number) for number in range(passes)]
            order = torch.cat(orders)[self.rank : wanted : self.world].tolist()
            for first in range(done * self.batch, len(order), self.batch):
                yield [(epoch, index) for index in order[first : first + self.batch]]
            done = 0
