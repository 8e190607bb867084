"""``hfids/`` streams: parquet and webdataset tars, on disk or on the Hub, read shard by shard through datasets."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from dccd_timm.batch import Batch
from dccd_timm.data import stream
from dccd_timm.data.decode import Record
from dccd_timm.data.patience import disable_inner_retries
from dccd_timm.data.sources.base import Reading, Source, TrainOrder, common_folder
from dccd_timm.data.sources.columns import Labels, NoLabels
from dccd_timm.data.sources.hfids_files import row_groups
from dccd_timm.data.stream import StreamBatches, StreamStart
from dccd_timm.network import limit_requests

if TYPE_CHECKING:
    from datasets import IterableDataset

_logger = logging.getLogger(__name__)

# Seconds to try again to read the end of a file on a Hub.
_FOOTER_SECONDS = 60.0
# Rows that cross from Arrow to Python at a time: one by one costs ten times as much.
_ROWS = 32


class HfidsStream(Source):
    """A split that is read in order, shard by shard, in loader workers only.

    A parquet stream that is left half-read aborts its process at exit, so the main process never reads one.

    Args:
        dataset: undecoded, with the image and class columns only.
        num_samples: images.
        image_key: column of the images.
        labels: column of their classes.
        files: files or addresses of the shards, as far as known.
        remote: whether it is read over a network, whose errors may be transient.
    """

    def __init__(
        self,
        dataset: "IterableDataset",
        num_samples: int,
        image_key: str,
        labels: Labels,
        files: list[str],
        remote: bool,
    ) -> None:
        self.dataset, self.names, self.num_samples = dataset, labels.names, num_samples
        self.image_key, self.target_key, self.labels = image_key, labels.key, labels
        self.columns = None if isinstance(labels, NoLabels) else (image_key, labels.key)
        self.files, self.remote = files, remote
        self.is_divided = False  # whether a shard is a part of a file

    @property
    def num_shards(self) -> int:
        """Parts that can be read independently of each other."""
        return int(self.dataset.num_shards)

    def paths(self) -> Sequence[str]:
        """Those of its shards."""
        return self.files

    @property
    def shuffle_block(self) -> int:
        """Records that a worker shuffles at a time."""
        return stream.BLOCK_RECORDS

    def fit_workers(self, workers: int, world: int) -> int:
        """At least one worker, since a stream is read in workers only, and not more than have a shard to read.

        With fewer shards than readers, parquet files are split further, by their row groups.
        """
        wanted = max(workers, 1)
        if self.num_shards < wanted * world:
            files = self.num_shards
            self.dataset = self.dataset.reshard()
            self.is_divided |= self.num_shards != files
        useful = min(wanted, max(1, self.num_shards // world))
        if self.num_shards < world:  # every rank reads all shards and keeps its part of the rows
            useful = min(wanted, self.num_shards)
        if useful < wanted:
            _logger.debug("%d loader workers instead of %d: the stream has %d shards", useful, wanted, self.num_shards)
        return useful

    def layout(self, workers: int) -> dict[str, int]:
        """Which shards a worker reads depends on both numbers."""
        return {"workers": workers, "shards": self.num_shards}

    def train_loader(self, reading: Reading, order: TrainOrder) -> Iterable[Batch | None]:
        """Endless batches, from the positions of the workers on."""
        return self._loader(reading, order.stream)

    def eval_loader(self, reading: Reading) -> Iterable[Batch]:
        """Each image once, in the stored order."""
        return self._loader(reading, StreamStart())

    def _loader(self, reading: Reading, start: StreamStart) -> DataLoader[Batch | None]:
        batches = StreamBatches(
            self, reading.reader, reading.collate, reading.batch_size, reading.rank, reading.world, reading.timeout,
            start,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None, **vars(reading.options))

    def shard_name(self, shard: int) -> str:
        """Name of a shard in messages."""
        if len(self.files) == self.num_shards:
            return self.files[shard].removeprefix(common_folder(self.files))
        return f"part {shard} of {self.num_shards}"

    def place(self, shard: int, row: int) -> tuple[int, int]:
        """A file's number and a row's number in it, however many workers divide the files."""
        file, first = self._parts[shard] if self.is_divided else (shard, 0)
        return file, first + row

    @cached_property
    def _parts(self) -> list[tuple[int, int]]:
        """The file and the first row of each shard."""
        return row_groups(self.files, _FOOTER_SECONDS)

    def rows(self, shard: int, start: int) -> Iterator[Record]:
        """Records of one shard from row ``start`` on; raises whatever datasets, Arrow and the Hub client raise."""
        limit_requests()  # in this worker
        disable_inner_retries()
        # shard() and iter() and not iter(): the plain iterator divides shards among workers once more
        part = self.dataset.shard(num_shards=self.num_shards, index=shard)
        if start:
            part = part.skip(start)
        name, row = self.shard_name(shard), start
        for batch in part.iter(batch_size=_ROWS):
            for image, target in zip(batch[self.image_key], batch[self.labels.column], strict=True):
                path = image.get("path") if isinstance(image, dict) else None
                yield Record(image, self.labels.index(target), f"{name} row {row}" + (f" ({path})" if path else ""))
                row += 1
