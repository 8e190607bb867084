"""Reading a stream: which shards a worker reads, in which order, how it waits and skips, and its position.

Each pass over the data distributes all shards over the workers of all ranks again, so that the union of a pass is
exactly the data set; what a worker reads is shuffled in blocks. datasets' own shuffle buffer and sharding are not used:
the first loses images on resume, the second cannot be combined with another one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from torch.utils.data import IterableDataset, get_worker_info

from dccd_timm.batch import Batch
from dccd_timm.data.collate import Collate, no_image
from dccd_timm.data.decode import Reader, Record, Sample
from dccd_timm.data.patience import DataPatience
from dccd_timm.data.seeds import permutation
from dccd_timm.errors import UserError
from dccd_timm.network import is_transient

# Undecoded records that a worker shuffles at a time: whichever limit comes first.
BLOCK_RECORDS = 1024
BLOCK_BYTES = 128 * 2**20
# Unreadable images that are reported before the batch is full.
_MANY = 256


class Shards(Protocol):
    """A split in parts that are read one by one, each from any row on."""

    num_samples: int
    remote: bool  # its errors may be transient

    @property
    def num_shards(self) -> int:
        """Parts that can be read independently of each other."""
        ...

    def shard_name(self, shard: int) -> str:
        """Name of a shard in messages."""
        ...

    def rows(self, shard: int, start: int) -> Iterator[Record]:
        """Records of one shard from row ``start`` on; may raise any error."""
        ...

    def place(self, shard: int, row: int) -> tuple[int, int]:
        """A file's number and a row's number in it, which do not depend on how files are divided into shards."""
        ...


@dataclass(frozen=True)
class Position:
    """Where a worker stands: ``offset`` records given of block ``block``, which begins at ``row`` of its ``shard``-th
    shard in pass ``epoch``."""

    epoch: int
    shard: int = 0
    row: int = 0
    block: int = 0
    offset: int = 0


@dataclass(frozen=True)
class StreamStart:
    """Where a stream begins: in pass ``epoch``, but a worker with a position there; ``turn`` is the worker whose batch
    comes first."""

    epoch: int = 0
    turn: int = 0
    positions: dict[int, Position] = field(default_factory=dict)


@dataclass(frozen=True)
class Worker:
    """Loader worker ``number`` of ``per_rank`` on one rank of ``world``."""

    rank: int
    world: int
    number: int
    per_rank: int

    def shards(self, order: list[int]) -> list[int]:
        """This worker's part of all shards in ``order``.

        With fewer shards than ranks, every rank reads all shards and keeps each ``world``-th row.
        """
        if len(order) < self.world:
            return order[self.number :: self.per_rank]
        return order[self.rank * self.per_rank + self.number :: self.world * self.per_rank]

    def keeps(self, row: int, shards: int) -> bool:
        """Whether a row is this rank's when there are ``shards`` shards in all."""
        return shards >= self.world or row % self.world == self.rank


class StreamBatches(IterableDataset[Batch | None]):
    """Batches of one rank, made in workers; each carries its worker and that worker's position after its last image.

    Args:
        shards: the split.
        reader: decodes and augments; with a seed the order is shuffled and the stream endless, without one it is the
            stored order, once.
        collate: samples to a batch.
        batch_size: images.
        rank, world: this process among all.
        timeout: seconds without data after which a remote source is given up.
        start: where to begin.
    """

    def __init__(
        self,
        shards: Shards,
        reader: Reader,
        collate: Collate,
        batch_size: int,
        rank: int,
        world: int,
        timeout: float,
        start: StreamStart,
    ) -> None:
        self.source, self.reader, self.collate, self.batch_size = shards, reader, collate, batch_size
        self.rank, self.world, self.timeout, self.start = rank, world, timeout, start
        self.block_records, self.block_bytes = BLOCK_RECORDS, BLOCK_BYTES

    def __iter__(self) -> Iterator[Batch | None]:
        info = get_worker_info()
        assert info is not None, "streams are read in workers only"
        worker = Worker(self.rank, self.world, info.id, info.num_workers)
        if worker.number < self.start.turn:
            yield None  # the loader asks worker 0 first; the turn is a later one's
        samples: list[Sample] = []
        read = 0
        start = self.start.positions.get(worker.number, Position(self.start.epoch))
        try:
            for sample, position in self._samples(worker, start):
                samples.append(sample)
                read += sample.views is not None
                if read == self.batch_size:
                    yield self._batch(samples, worker, position)
                    samples, read = [], 0
                elif len(samples) - read >= _MANY:
                    # reported at once, and without a position: the images that were read are still to come
                    yield Batch.empty([skip for s in samples for skip in s.skipped])
                    samples = [s for s in samples if s.views is not None]
            if samples:
                yield self._batch(samples, worker, position)
        except UserError as error:
            yield Batch.empty([skip for s in samples for skip in s.skipped], str(error))

    def _batch(self, samples: list[Sample], worker: Worker, position: Position) -> Batch:
        batch = self.collate(samples)
        batch.worker, batch.position = worker.number, asdict(position)
        return batch

    def _samples(self, worker: Worker, position: Position) -> Iterator[tuple[Sample, Position]]:
        """Samples from ``position`` on, each with the position after it."""
        without = set[int]()  # shards of the passes that gave no record at all
        while True:
            epoch, any_read, first = position.epoch, False, ""
            for block, start in self._blocks(worker, position):
                order = self._order(len(block), worker, start)
                for offset in range(start.offset, len(block)):
                    item = block[order[offset]]
                    if isinstance(item, Sample):
                        sample = item
                    else:
                        record, shard, row = item
                        # older students were drawn from the number of the shard
                        place = self.source.place(shard, row) if self.reader.period else (shard, row)
                        sample = self.reader.sample(record, epoch, *place)
                    any_read |= sample.views is not None
                    first = first or (sample.skipped[0][0] if sample.skipped else "")
                    yield sample, replace(start, offset=offset + 1)
            if self.reader.seed is None:
                return
            without |= set(self._shards(worker, epoch))
            if any_read or position != Position(epoch):
                without.clear()
            elif first or len(without) == self.source.num_shards:  # else a worker without images would never end
                raise UserError(no_image(f"shards of loader worker {worker.number} on rank {worker.rank}", first))
            position = Position(epoch + 1)

    def _shards(self, worker: Worker, epoch: int) -> list[int]:
        """The shards that a worker reads in a pass, in their order."""
        order = list(range(self.source.num_shards))
        if self.reader.seed is not None:
            order = permutation(len(order), self.reader.seed, epoch).tolist()
        return worker.shards(order)

    def _order(self, size: int, worker: Worker, start: Position) -> list[int]:
        """The order of a block of this size."""
        if self.reader.seed is None:
            return list(range(size))
        return permutation(size, self.reader.seed, start.epoch, worker.rank, worker.number, start.block).tolist()

    def _blocks(
        self, worker: Worker, position: Position
    ) -> Iterator[tuple[list[tuple[Record, int, int] | Sample], Position]]:
        """Blocks of one pass from ``position`` on: records with shard and row; and where each block begins."""
        total = self.source.num_shards
        mine = self._shards(worker, position.epoch)
        block: list[tuple[Record, int, int] | Sample] = []
        size = 0
        start = position
        for number in range(position.shard, len(mine)):
            first = position.row if number == position.shard else 0
            for row, item in self._rows(mine[number], first):
                if isinstance(item, Record) and not worker.keeps(row, total):
                    continue
                if len(block) == self.block_records or size >= self.block_bytes:
                    yield block, start
                    block, size = [], 0
                    start = Position(position.epoch, number, row, start.block + 1)
                block.append((item, mine[number], row) if isinstance(item, Record) else item)
                size += item.nbytes if isinstance(item, Record) else 0
        if block:
            yield block, start

    def _rows(self, shard: int, start: int) -> Iterator[tuple[int, Record | Sample]]:
        """Rows of a shard, numbered; waits for a lost connection, and ends with what is lost of a broken shard.

        Raises:
            UserError: when a remote source gives no data any more.
        """
        row, patience = start, DataPatience(self.timeout)
        while True:
            try:
                for record in self.source.rows(shard, row):
                    yield row, record
                    row += 1
                    patience.succeeded()
                return
            except UserError:  # a value that is no class
                raise
            except Exception as error:  # datasets, Arrow, file systems and the Hub client raise dozens of kinds here
                name = self.source.shard_name(shard)
                if self.source.remote and is_transient(error):
                    patience.wait(f"{name} row {row}", error)
                    continue
                lost = max(1, self.source.num_samples // self.source.num_shards - row)
                yield row, Sample.skipping(f"{name} from row {row} on, about {lost} images", error, lost)
                return
