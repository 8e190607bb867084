"""Images a stream: which shards a worker reads, in which order, how it waits and skips, and where it stands.

A *seat* is one loader worker of one rank. Each pass over the data deals all shards to the seats anew, so that the union
of a pass is the data set exactly; what a seat reads is shuffled in blocks. datasets' own shuffle buffer and sharding
are not used: the first loses images on resume, the second cannot be combined with another one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch.utils.data import IterableDataset, get_worker_info

from dccd_timm.batch import Batch
from dccd_timm.data.decode import Collate, Reader, Sample
from dccd_timm.data.patience import DataPatience
from dccd_timm.data.sources.hfids import StreamSource
from dccd_timm.data.sources.timm_readers import Record
from dccd_timm.data.views import mix
from dccd_timm.errors import UserError
from dccd_timm.network import is_transient

# Undecoded records that a worker shuffles at a time: whichever limit comes first.
BLOCK_RECORDS = 1024
BLOCK_BYTES = 128 * 2**20
# Unreadable images that are reported before the batch is full.
_MANY = 256


@dataclass(frozen=True)
class Place:
    """Where a seat stands: ``offset`` records given of block ``block``, which begins at ``row`` of its ``shard``-th
    shard in pass ``epoch``."""

    epoch: int
    shard: int = 0
    row: int = 0
    block: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Seat:
    """One loader worker of one rank, among all."""

    rank: int
    world: int
    worker: int
    workers: int

    def shards(self, order: list[int]) -> list[int]:
        """This seat's part of all shards in ``order``.

        With fewer shards than ranks, every rank reads all shards and keeps each ``world``-th row.
        """
        if len(order) < self.world:
            return order[self.worker :: self.workers]
        return order[self.rank * self.workers + self.worker :: self.world * self.workers]

    def keeps(self, row: int, shards: int) -> bool:
        """Whether a row is this rank's when there are ``shards`` shards in all."""
        return shards >= self.world or row % self.world == self.rank


class StreamBatches(IterableDataset[Batch | None]):
    """Batches of one rank, made in workers; each carries its worker and the place behind its last image.

    Args:
        source: the split.
        reader: decodes and augments; with a seed the order is shuffled and the stream endless, without one it is the
            stored order, once.
        collate: samples to a batch.
        batch_size: images.
        rank, world: this process among all.
        patience: seconds without data after which a remote source is given up.
        start_epoch: first pass.
        places: where workers go on, by worker number.
        turn: the worker whose batch comes next.
    """

    def __init__(
        self,
        source: StreamSource,
        reader: Reader,
        collate: Collate,
        batch_size: int,
        rank: int,
        world: int,
        patience: float,
        start_epoch: int = 0,
        places: dict[int, Place] | None = None,
        turn: int = 0,
    ) -> None:
        self.source, self.reader, self.collate, self.batch_size = source, reader, collate, batch_size
        self.rank, self.world, self.patience = rank, world, patience
        self.start_epoch, self.places, self.turn = start_epoch, places or {}, turn

    def __iter__(self) -> Iterator[Batch | None]:
        info = get_worker_info()
        assert info is not None, "streams are read in workers only"
        seat = Seat(self.rank, self.world, info.id, info.num_workers)
        if info.id < self.turn:
            yield None  # the loader asks worker 0 first; the turn is a later one's
        samples: list[Sample] = []
        read = 0
        start = self.places.get(info.id, Place(self.start_epoch))
        try:
            for sample, place in self._samples(seat, start):
                samples.append(sample)
                read += sample.views is not None
                if read == self.batch_size:
                    yield self._batch(samples, seat, place)
                    samples, read = [], 0
                elif len(samples) - read >= _MANY:
                    # so much is said at once, and without a place: what was read is still to come
                    yield Batch.empty([skip for s in samples for skip in s.skipped])
                    samples = [s for s in samples if s.views is not None]
            if samples:
                yield self._batch(samples, seat, place)
        except UserError as error:
            yield Batch.empty(fatal=str(error))

    def _batch(self, samples: list[Sample], seat: Seat, place: Place) -> Batch:
        batch = self.collate(samples)
        batch.worker, batch.place = seat.worker, asdict(place)
        return batch

    def _samples(self, seat: Seat, place: Place) -> Iterator[tuple[Sample, Place]]:
        """Samples from ``place`` on, each with the place behind it."""
        while True:
            epoch, readable = place.epoch, False
            for block, start in self._blocks(seat, place):
                order = self._permutation(len(block), seat, start)
                for offset in range(start.offset, len(block)):
                    item = block[order[offset]]
                    if isinstance(item, Sample):
                        sample = item
                    else:
                        record, shard, row = item
                        sample = self.reader.sample(record, epoch, shard, row)
                    readable |= sample.views is not None
                    yield sample, replace(start, offset=offset + 1)
            if self.reader.seed is None:
                return
            if not readable and place == Place(epoch):  # else a worker without images would spin for ever
                raise UserError(f"a whole pass over worker {seat.worker}'s shards gave no readable image")
            place = Place(epoch + 1)

    def _permutation(self, size: int, seat: Seat, place: Place) -> list[int]:
        if self.reader.seed is None:
            return list(range(size))
        numbers = (self.reader.seed, place.epoch, seat.rank, seat.worker, place.block)
        return torch.randperm(size, generator=torch.Generator().manual_seed(mix(*numbers))).tolist()

    def _blocks(self, seat: Seat, place: Place) -> Iterator[tuple[list[tuple[Record, int, int] | Sample], Place]]:
        """Blocks of one pass from ``place`` on: records with shard and row, and the place where each block begins."""
        total = self.source.num_shards
        order = list(range(total))
        if self.reader.seed is not None:
            order = torch.randperm(total, generator=_generator(self.reader.seed, place.epoch)).tolist()
        mine = seat.shards(order)
        block: list[tuple[Record, int, int] | Sample] = []
        size = 0
        start = place
        for number in range(place.shard, len(mine)):
            first = place.row if number == place.shard else 0
            for row, item in self._rows(mine[number], first):
                if isinstance(item, Record) and not seat.keeps(row, total):
                    continue
                if len(block) == BLOCK_RECORDS or size >= BLOCK_BYTES:
                    yield block, start
                    block, size = [], 0
                    start = Place(place.epoch, number, row, start.block + 1)
                block.append((item, mine[number], row) if isinstance(item, Record) else item)
                size += item.nbytes if isinstance(item, Record) else 0
        if block:
            yield block, start

    def _rows(self, shard: int, start: int) -> Iterator[tuple[int, Record | Sample]]:
        """Rows of a shard, numbered; waits for a lost connection, and ends with what is lost of a broken shard.

        Raises:
            UserError: when a remote source stays away.
        """
        row, patience = start, DataPatience(self.patience)
        while True:
            try:
                for record in self.source.rows(shard, row):
                    yield row, record
                    row += 1
                    patience.succeeded()
                return
            except Exception as error:  # datasets, Arrow, file systems and the Hub client raise dozens of kinds here
                name = self.source.shard_name(shard)
                if self.source.remote and is_transient(error):
                    patience.wait(f"{name} row {row}", error)
                    continue
                lost = max(1, self.source.num_samples // self.source.num_shards - row)
                yield row, Sample.skipping(f"{name} from row {row} on, about {lost} images", error, lost)
                return


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(*numbers))
