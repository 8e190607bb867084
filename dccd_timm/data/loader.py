"""Loaders of one rank: endless batches in training, which can be resumed at any; each image once in evaluation."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dccd_timm.batch import Batch
from dccd_timm.data.collate import SkipCounter, no_image
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.side_stream import side_stream
from dccd_timm.data.sources.base import Source
from dccd_timm.data.stream import Position, StreamStart
from dccd_timm.errors import UserError

_logger = logging.getLogger(__name__)

SavedPosition = dict[str, Any]  # a TrainPosition as JSON


@dataclass
class TrainPosition:
    """Where the data of a training stands, for one rank.

    Args:
        layout: what a saved position depends on; under another one it is worthless.
        given: batches that were given, by all runs of the training together.
        turn: the worker whose batch comes next, where the source is a stream.
        positions: positions of a stream's workers, by worker number.
    """

    layout: dict[str, int]
    given: int = 0
    turn: int = 0
    positions: dict[int, Position] = field(default_factory=dict)

    @classmethod
    def load(cls, state: SavedPosition) -> "TrainPosition":
        """The position that :meth:`state` saved."""
        positions = {int(worker): Position(**position) for worker, position in state["places"].items()}
        return cls(state["layout"], state["given"], state["turn"], positions)

    def state(self) -> SavedPosition:
        """The position for JSON."""
        places = {str(worker): vars(position) for worker, position in self.positions.items()}
        return {"layout": self.layout, "given": self.given, "turn": self.turn, "places": places}

    def stream_start(self, epoch: int) -> StreamStart:
        """Where a stream begins: at the workers' positions, or at ``epoch`` where they have none."""
        return StreamStart(epoch, self.turn, self.positions)


class TrainLoader:
    """Endless batches of one rank, on the device; ``batches_per_epoch`` of them are an epoch on every rank.

    Where the device has streams, the next batch is read, copied and prepared on a second one before a batch is given.
    What is drawn, saved and counted is the same as without.

    Args:
        source: the split.
        loader: endless, or one epoch each time it is iterated.
        batches: batches of an epoch.
        prepare: what is left to do on the device.
        skips: counter of unreadable images.
        position: where to begin.
        num_classes: classes of the student, to notice data that is sorted by class.
        resumed: whether ``position`` is a saved one, and not the beginning of an epoch.

    ``before_batch`` is called with each batch before it is given, where it is set.
    """

    def __init__(
        self,
        source: Source,
        loader: Iterable[Batch | None],
        batches: int,
        prepare: ViewPreparer,
        skips: SkipCounter,
        position: TrainPosition,
        num_classes: int | None = None,
        resumed: bool = False,
    ) -> None:
        self.resumed = resumed
        self.before_batch: Callable[[Batch], None] | None = None
        self.source, self.loader, self.batches_per_epoch, self.prepare = source, loader, batches, prepare
        self.skips, self.position, self.num_classes = skips, position, num_classes
        self.side = side_stream(prepare.device)
        self._batches: Generator[Batch] | None = None
        self._first: Batch | None = None
        self._has_looked = False
        self._numbers = count(position.given)

    def peek(self) -> Batch:
        """The first batch, read ahead: bad data stops a run before it has written anything. It is not lost."""
        if self._first is None:
            self._batches = self._endless()
            self._first = self._next(self.skips.check)
        return self._first

    def __iter__(self) -> Iterator[Batch]:
        batch, self._first = self.peek(), None  # kept, it would fill a GPU's memory to the end of the training
        while True:
            self.position.given += 1
            if batch.position is not None:
                self.position.positions[batch.worker] = Position(**batch.position)
                self.position.turn = (batch.worker + 1) % self.position.layout["workers"]
            if self.before_batch is not None:
                self.before_batch(batch)
            # not beyond the end of an epoch: the next one may begin without mixing
            if self.side is None or self.position.given % self.batches_per_epoch == 0:
                yield batch
                batch = self._next(self.skips.check)
                continue
            read: list[Batch] = []
            with self.side:
                following = self._next(read.append)
            yield batch
            self.side.join()
            for (
                other
            ) in read:  # when their turn has come: a state that is saved before must not count what they skipped
                self.skips.check(other)
            batch = following

    def _next(self, check: Callable[[Batch], None]) -> Batch:
        """The next batch that has images, prepared; ``check`` gets each batch that is read for it."""
        assert self._batches is not None
        while True:
            batch = next(self._batches)
            check(batch)
            if len(batch.views):
                first, self._has_looked = not self._has_looked, True
                if first and self.num_classes and self.source.shuffle_block:
                    _warn_if_sorted(batch.target.tolist(), self.num_classes, self.source.shuffle_block)
                return self.prepare(batch, next(self._numbers))

    def close(self) -> None:
        """End the workers. Left to the garbage collector, their queues may go first: each then takes 5 seconds."""
        if self._batches is not None:
            self._batches.close()

    def state(self) -> SavedPosition:
        """The position after the batch that was given last, for :func:`build_train_loader` to resume from; JSON."""
        return self.position.state()

    def _endless(self) -> Generator[Batch]:
        """Batches as they are read, those without images too."""
        while True:
            given, since = False, 0  # images that were read and left out since the last one that was given
            for batch in self.loader:
                if batch is None:  # a worker whose turn is over
                    continue
                yield batch
                if len(batch.views):
                    given, since = True, 0
                    continue
                # not the neighbours that were tried in their place
                since += min(self.position.layout["batch_size"], sum(images for _, images in batch.skipped))
                if since * self.position.layout["world"] >= self.source.num_samples:  # the source may be endless
                    given = False
                    break
            if not given:
                raise UserError(no_image("training split", next(iter(self.skips.images), "")))


def _warn_if_sorted(targets: list[int], num_classes: int, block: int) -> None:
    """Warn when the first images of a stream have far fewer classes than chance would give."""
    expected = num_classes * (1 - (1 - 1 / num_classes) ** len(targets))
    if len(set(targets)) < expected / 2:
        _logger.warning(
            "the first %d images have %d of %d classes: this data looks sorted, and a stream is shuffled only within"
            " blocks of %d images: shuffle it before it is written",
            len(targets), len(set(targets)), num_classes, block,
        )  # fmt: skip


class EvalLoader:
    """Each image of a split once over all ranks, on the device; a batch of none says what was skipped."""

    def __init__(
        self, source: Source, loader: Iterable[Batch], batch_size: int, prepare: ViewPreparer, skips: SkipCounter
    ) -> None:
        self.source, self.loader, self.batch_size, self.prepare, self.skips = source, loader, batch_size, prepare, skips

    def __len__(self) -> int:
        """Batches, as far as the source knows its size."""
        return -(-self.source.num_samples // self.batch_size)

    def __iter__(self) -> Generator[Batch]:
        self.skips.images.clear()
        for batch in self.loader:
            self.skips.check(batch)
            yield self.prepare(batch) if len(batch.views) else batch
