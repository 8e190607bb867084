"""Sources -> batches of views: sharded over ranks and workers, endless in training, exact in evaluation."""

import logging
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from dccd_timm.batch import Batch
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.source import AnySource, MapSource, Record, StreamSource, TimmStreamSource
from dccd_timm.data.views import MultiViewTransform, decode, mix, seeded, stack
from dccd_timm.recipe import UserError

_logger = logging.getLogger(__name__)

# Undecoded records that a worker permutes at a time; a stream is otherwise read in shard order.
_BLOCK = 1024
_RETRIES = 20


class _Sample:
    """Views [V, C, H, W] of one image with its class, and the samples skipped on the way to it."""

    def __init__(self, views: Tensor, target: int, skipped: list[str]) -> None:
        self.views, self.target, self.skipped = views, target, skipped


class _Reader:
    """Decodes and augments records; unreadable ones become names in ``skipped``."""

    def __init__(self, transform: MultiViewTransform, mode: str, seed: int | None) -> None:
        self.transform, self.mode, self.seed = transform, mode, seed

    def views(self, record: Record, *position: int) -> Tensor:
        """Views of a record, drawn from seed and position; may raise OSError."""
        image = decode(record.image, self.mode)
        if self.seed is None:
            return stack(self.transform(image))
        with seeded(self.seed, *position):
            return stack(self.transform(image))


class _MapViews(Dataset[_Sample]):
    """Samples of a map source; an index is (epoch, index), so workers need not be told the epoch."""

    def __init__(self, source: MapSource, reader: _Reader, skips_to_next: bool) -> None:
        self.source, self.reader, self.skips_to_next = source, reader, skips_to_next

    def __getitem__(self, position: tuple[int, int]) -> _Sample:
        epoch, index = position
        skipped: list[str] = []
        for _ in range(_RETRIES if self.skips_to_next else 1):
            try:
                record = self.source.record(index)
                return _Sample(self.reader.views(record, epoch, index), record.target, skipped)
            except (OSError, ValueError, SyntaxError) as error:  # PIL raises all three on broken files
                skipped.append(f"{self.source._name(index)} ({_reason(error)})")
                index = (index + 1) % self.source.num_samples
        return _Sample(torch.empty(0), -1, skipped)


class _StreamViews(IterableDataset[_Sample]):
    """Samples of a stream, pass after pass: shards in a new order each pass, records permuted in blocks."""

    def __init__(
        self,
        source: StreamSource | TimmStreamSource,
        reader: _Reader,
        rank: int,
        world: int,
        passes: int | None,
        start: int = 0,
    ) -> None:
        self.source, self.reader, self.rank, self.world = source, reader, rank, world
        self.passes, self.start = passes, start

    def __iter__(self) -> Iterator[_Sample]:
        info = get_worker_info()
        worker = info.id if info else 0
        skipped: list[str] = []
        for epoch in count(self.start) if self.passes is None else range(self.start, self.start + self.passes):
            position = empty = 0
            for record in self._pass(epoch, worker):
                position += 1
                try:
                    views = self.reader.views(record, epoch, self.rank, worker, position)
                except (OSError, ValueError, SyntaxError) as error:
                    skipped.append(f"{record.name} ({_reason(error)})")
                    empty += 1
                    if empty >= _RETRIES:
                        yield _Sample(torch.empty(0), -1, skipped)
                    continue
                yield _Sample(views, record.target, skipped)
                skipped, empty = [], 0
            if position == 0:  # a worker without a shard would spin for ever
                return
        if skipped:
            yield _Sample(torch.empty(0), -1, skipped)

    def _pass(self, epoch: int, worker: int) -> Iterator[Record]:
        seed = self.reader.seed
        if isinstance(self.source, TimmStreamSource):
            if seed is not None:
                self.source.dataset.reader.set_epoch(epoch)
            yield from self.source.records()
            return
        dataset = self.source.dataset
        if seed is not None:
            # buffer 1 and one input shard: shard order only. datasets' own buffer cannot be resumed.
            dataset = dataset.shuffle(seed=mix(seed, epoch) % 2**31, buffer_size=1, max_buffer_input_shards=1)
        if self.world > 1:
            from datasets.distributed import split_dataset_by_node  # absent on machines that read other sources

            by = "shards" if seed is not None and dataset.num_shards >= self.world else "examples"
            dataset = split_dataset_by_node(dataset, self.rank, self.world, strategy=by)
        records = self.source.records(dataset)
        if seed is None:
            yield from records
            return
        for block in count():
            held = [record for record, _ in zip(records, range(_BLOCK), strict=False)]
            if not held:
                return
            generator = torch.Generator().manual_seed(mix(seed, epoch, self.rank, worker, block))
            for index in torch.randperm(len(held), generator=generator).tolist():
                yield held[index]


class _EpochSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index): each epoch a new permutation, each rank its own part of every batch."""

    def __init__(self, size: int, batch: int, batches: int, seed: int, rank: int, world: int, start: int) -> None:
        self.size, self.batch, self.batches = size, batch, batches
        self.seed, self.rank, self.world, self.start = seed, rank, world, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in count(self.start):
            wanted = self.batches * self.batch * self.world
            passes = -(-wanted // self.size)
            order = torch.cat([
                torch.randperm(self.size, generator=torch.Generator().manual_seed(mix(self.seed, epoch, k)))
                for k in range(passes)
            ])[self.rank : wanted : self.world].tolist()  # fmt: skip
            for first in range(0, len(order), self.batch):
                yield [(epoch, index) for index in order[first : first + self.batch]]


class _Collate:
    """Samples to a Batch; checks class indices where the data is read."""

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes

    def __call__(self, samples: list[_Sample]) -> Batch:
        skipped = [name for sample in samples for name in sample.skipped]
        samples = [sample for sample in samples if sample.views.numel()]
        if not samples:
            return Batch(torch.empty(0), torch.empty(0, dtype=torch.long), skipped)
        targets = [sample.target for sample in samples]
        fatal = None
        if self.num_classes and not all(0 <= t < self.num_classes for t in targets):
            wrong = next(t for t in targets if not 0 <= t < self.num_classes)
            fatal = f"class index {wrong} is outside 0 ... {self.num_classes - 1}: set --num-classes or --class-map"
        return Batch(torch.stack([s.views for s in samples]), torch.tensor(targets), skipped, fatal)


class SkipCounter:
    """Counts samples that could not be read, names the first ones in the log, and stops at a limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.names = limit, list[str]()

    def check(self, batch: Batch) -> None:
        """Take note of a batch.

        Raises:
            UserError: past the limit, or for a problem that cannot be skipped.
        """
        if batch.fatal:
            raise UserError(batch.fatal)
        for name in batch.skipped:
            self.names.append(name)
            if len(self.names) <= 10:
                _logger.warning("skipped unreadable image %d: %s", len(self.names), name)
        if len(self.names) > self.limit:
            raise UserError(
                f"{len(self.names)} images could not be read, more than --max-data-errors {self.limit}; the first:"
                f" {self.names[0]}"
            )


class TrainLoader:
    """Endless batches of one rank, on the device; ``batches_per_epoch`` of them are an epoch on every rank."""

    def __init__(self, source: AnySource, loader: DataLoader[Any], batches: int, prepare: ViewPreparer, limit: int):
        self.source, self.loader, self.batches_per_epoch, self.prepare = source, loader, batches, prepare
        self.skips = SkipCounter(limit)
        self._batches: Iterator[Batch] | None = None
        self._first: Batch | None = None

    def peek(self) -> Batch:
        """The first batch, read ahead: bad data stops a run before it has written anything. It is not lost."""
        if self._first is None:
            self._batches = self._endless()
            self._first = next(self._batches)
        return self._first

    def __iter__(self) -> Iterator[Batch]:
        yield self.peek()
        assert self._batches is not None
        yield from self._batches

    def _endless(self) -> Iterator[Batch]:
        while True:
            empty = True
            for batch in self.loader:
                self.skips.check(batch)
                if len(batch.views):
                    empty = False
                    yield self.prepare(batch)
            if empty:
                raise UserError("the training split gave no readable image")
            if isinstance(self.loader.dataset, _StreamViews):  # a reader of timm's, one pass at a time
                self.loader.dataset.start += 1


class EvalLoader:
    """Each image of a split once over all ranks, on the device."""

    def __init__(self, source: AnySource, loader: DataLoader[Any], prepare: ViewPreparer, limit: int) -> None:
        self.source, self.loader, self.prepare = source, loader, prepare
        self.skips = SkipCounter(limit)

    def __len__(self) -> int:
        """Batches, as far as the source knows its size."""
        return -(-self.source.num_samples // (self.loader.batch_size or 1))

    def __iter__(self) -> Iterator[Batch]:
        self.skips.names.clear()
        for batch in self.loader:
            self.skips.check(batch)
            if len(batch.views):
                yield self.prepare(batch)


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
