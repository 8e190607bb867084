"""Loaders of one rank: endless batches in training, with a position to go on from; each image once in evaluation."""

import logging
from collections.abc import Generator, Iterator
from itertools import count
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from dccd_timm.batch import Batch
from dccd_timm.data.decode import Reader, Sample, SkipCounter
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.sources.hfids import StreamSource
from dccd_timm.data.sources.timm_readers import MapSource, TimmStreamSource
from dccd_timm.data.stream import BLOCK_RECORDS, StreamBatches
from dccd_timm.data.views import mix
from dccd_timm.errors import UserError

_logger = logging.getLogger(__name__)

AnySource = MapSource | StreamSource | TimmStreamSource

# Neighbours that are tried in place of an unreadable image before it is left out.
_RETRIES = 20


class MapViews(Dataset[Sample]):
    """Samples of a map source; an index is (epoch, index), so workers need not be told the epoch."""

    def __init__(self, source: MapSource, reader: Reader, skips_to_next: bool) -> None:
        self.source, self.reader, self.skips_to_next = source, reader, skips_to_next

    def __getitem__(self, position: tuple[int, int]) -> Sample:
        epoch, index = position
        skipped: list[tuple[str, int]] = []
        for _ in range(_RETRIES if self.skips_to_next else 1):
            sample = self._sample(epoch, index)
            skipped += sample.skipped
            if sample.views is not None:
                return Sample(sample.views, sample.target, skipped)
            index = (index + 1) % self.source.num_samples
        return Sample(None, -1, skipped)

    def _sample(self, epoch: int, index: int) -> Sample:
        try:
            record = self.source.record(index)
        except (OSError, ValueError, SyntaxError) as error:  # what PIL raises inside other people's data sets
            return Sample.skipping(self.source.name(index), error)
        return self.reader.sample(record, epoch, index)


class TimmStreamViews(IterableDataset[Sample]):
    """Samples of one of timm's own streams, which shards and shuffles itself and cannot be resumed within an epoch."""

    def __init__(self, source: TimmStreamSource, reader: Reader, start: int = 0) -> None:
        self.source, self.reader, self.epoch = source, reader, start

    def __iter__(self) -> Iterator[Sample]:
        if self.reader.seed is not None:
            self.source.dataset.reader.set_epoch(self.epoch)
        for number, record in enumerate(self.source.records()):
            yield self.reader.sample(record, self.epoch, number)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index): each epoch a new permutation, each rank its own part of every batch.

    Args:
        size: images of the data set.
        batch: images of a batch of one rank.
        batches: batches of an epoch.
        seed: of the permutations.
        rank, world: this process among all.
        start: batches to leave out: an epoch's worth for each epoch that is over.
    """

    def __init__(self, size: int, batch: int, batches: int, seed: int, rank: int, world: int, start: int) -> None:
        self.size, self.batch, self.batches = size, batch, batches
        self.seed, self.rank, self.world, self.start = seed, rank, world, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        first_epoch, done = divmod(self.start, self.batches)
        for epoch in count(first_epoch):
            wanted = self.batches * self.batch * self.world
            passes = -(-wanted // self.size)
            order = torch.cat([
                torch.randperm(self.size, generator=torch.Generator().manual_seed(mix(self.seed, epoch, k)))
                for k in range(passes)
            ])[self.rank : wanted : self.world].tolist()  # fmt: skip
            for first in range(done * self.batch, len(order), self.batch):
                yield [(epoch, index) for index in order[first : first + self.batch]]
            done = 0


class TrainLoader:
    """Endless batches of one rank, on the device; ``batches_per_epoch`` of them are an epoch on every rank.

    Args:
        source: the split.
        loader: endless, or one pass of a stream of timm's.
        batches: batches of an epoch.
        prepare: what is left to do on the device.
        skips: counter of unreadable images.
        layout: what the position is only valid with.
        start: batches that were given before, by the runs that this one goes on from.
        position: ``turn`` and ``places`` of a stream to go on from.
    """

    def __init__(
        self,
        source: AnySource,
        loader: DataLoader[Any],
        batches: int,
        prepare: ViewPreparer,
        skips: SkipCounter,
        layout: dict[str, Any],
        start: int = 0,
        position: dict[str, Any] | None = None,
    ) -> None:
        self.source, self.loader, self.batches_per_epoch, self.prepare = source, loader, batches, prepare
        self.skips, self.layout, self.given = skips, layout, start
        self.position: dict[str, Any] = position or {"turn": 0, "places": {}}
        self._batches: Generator[Batch] | None = None
        self._first: Batch | None = None

    def peek(self) -> Batch:
        """The first batch, read ahead: bad data stops a run before it has written anything. It is not lost."""
        if self._first is None:
            self._batches = self._endless()
            self._first = next(self._batches)
        return self._first

    def __iter__(self) -> Iterator[Batch]:
        batch = self.peek()
        assert self._batches is not None
        while True:
            self.given += 1
            if batch.place is not None:
                places = {**self.position["places"], str(batch.worker): batch.place}
                self.position = {"turn": (batch.worker + 1) % self.loader.num_workers, "places": places}
            yield batch
            batch = next(self._batches)

    def close(self) -> None:
        """End the workers. Left to the garbage collector, their queues may go first: each then takes 5 seconds."""
        if self._batches is not None:
            self._batches.close()

    def state(self) -> dict[str, Any]:
        """Where the batch that was given last ends, for :func:`build_train_loader` to go on from; JSON."""
        return {"layout": self.layout, "given": self.given, **self.position}

    def _endless(self) -> Generator[Batch]:
        numbers = count(self.given)
        while True:
            empty = True
            for batch in self.loader:
                if batch is None:  # a worker whose turn is over
                    continue
                self.skips.check(batch)
                if len(batch.views):
                    if self._first is None and isinstance(self.loader.dataset, StreamBatches):
                        _warn_if_sorted(batch.target.tolist(), self.loader.dataset.collate.num_classes)
                    empty = False
                    yield self.prepare(batch, next(numbers))
            if empty:
                raise UserError("the training split gave no readable image")
            if isinstance(self.loader.dataset, TimmStreamViews):
                self.loader.dataset.epoch += 1


def _warn_if_sorted(targets: list[int], num_classes: int | None) -> None:
    """Say when the first images of a stream have far fewer classes than chance would give."""
    if not num_classes:
        return
    expected = num_classes * (1 - (1 - 1 / num_classes) ** len(targets))
    if len(set(targets)) < expected / 2:
        _logger.warning(
            "the first %d images have %d of %d classes: this data looks sorted, and a stream is shuffled only within"
            " blocks of %d images; write it shuffled",
            len(targets), len(set(targets)), num_classes, BLOCK_RECORDS,
        )  # fmt: skip


class EvalLoader:
    """Each image of a split once over all ranks, on the device."""

    def __init__(
        self, source: AnySource, loader: DataLoader[Any], batch_size: int, prepare: ViewPreparer, skips: SkipCounter
    ) -> None:
        self.source, self.loader, self.batch_size, self.prepare, self.skips = source, loader, batch_size, prepare, skips

    def __len__(self) -> int:
        """Batches, as far as the source knows its size."""
        return -(-self.source.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        self.skips.images.clear()
        for batch in self.loader:
            self.skips.check(batch)
            if len(batch.views):
                yield self.prepare(batch)
