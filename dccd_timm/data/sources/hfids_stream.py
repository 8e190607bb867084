"""``hfids/`` streams: parquet and webdataset tars, on disk or on the Hub, read shard by shard through datasets."""

import contextlib
import logging
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import fsspec
import pyarrow
import pyarrow.parquet
from torch.utils.data import DataLoader

from dccd_timm.batch import Batch
from dccd_timm.data import stream
from dccd_timm.data.decode import Record
from dccd_timm.data.patience import DataPatience, disable_inner_retries
from dccd_timm.data.sources.base import Reading, Source, TrainOrder, common_folder
from dccd_timm.data.sources.endings import is_other_image, warn_of_other_images
from dccd_timm.data.stream import StreamBatches, StreamStart
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import limit_requests, retry

if TYPE_CHECKING:
    from datasets import IterableDataset

_logger = logging.getLogger(__name__)

# Rows that cross from Arrow to Python at a time: one by one costs ten times as much.
_ROWS = 32


class HfidsStream(Source):
    """A split that is read in order, shard by shard, in loader workers only.

    A parquet stream that is left half-read aborts its process at exit, so the main process never reads one.

    Args:
        dataset: undecoded, with the image and class columns only.
        names: class names in index order.
        num_samples: images.
        image_key, target_key: columns of the images and of their classes.
        files: files or addresses of the shards, as far as known.
        remote: whether it is read over a network, whose errors may be transient.
        class_to_idx: from the values of the class column to indices, where it does not hold indices.
    """

    def __init__(
        self,
        dataset: "IterableDataset",
        names: list[str] | None,
        num_samples: int,
        image_key: str,
        target_key: str,
        files: list[str],
        remote: bool,
        class_to_idx: dict[str, int] | None = None,
    ) -> None:
        self.dataset, self.names, self.num_samples = dataset, names, num_samples
        self.image_key, self.target_key = image_key, target_key
        self.files, self.remote, self.class_to_idx = files, remote, class_to_idx

    @property
    def num_shards(self) -> int:
        """Parts that can be read independently of each other."""
        return int(self.dataset.num_shards)

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
            self.dataset = self.dataset.reshard()
        useful = min(wanted, max(1, self.num_shards // world))
        if self.num_shards < world:  # every rank reads all shards and keeps its part of the rows
            useful = min(wanted, self.num_shards)
        if useful < wanted:
            _logger.info("%d loader workers instead of %d: the stream has %d shards", useful, wanted, self.num_shards)
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
            for image, target in zip(batch[self.image_key], batch[self.target_key], strict=True):
                path = image.get("path") if isinstance(image, dict) else None
                yield Record(image, self._index(target), f"{name} row {row}" + (f" ({path})" if path else ""))
                row += 1

    def _index(self, target: int | str | None) -> int | None:
        """The class index of a value of the class column; -1 for one that the class map does not have."""
        if self.class_to_idx is None or target is None:
            return target  # type: ignore[return-value]  # the column holds indices
        return self.class_to_idx.get(target, -1)  # type: ignore[arg-type]


def count_images(
    dataset: "IterableDataset", split: str, files: list[str], image_key: str, timeout: float
) -> int | None:
    """Images of a split: from the data set's card, else from parquet footers or the headers of local tars.

    Raises:
        UserError: for a parquet file that cannot be read.
    """
    info = (dataset.info.splits or {}).get(split)
    if info is not None and info.num_examples:
        return int(info.num_examples)
    others: list[str] = []
    counters: dict[str, Callable[[str], int]] = {".parquet": lambda file: _parquet_rows(file, timeout)}
    if not any("://" in file for file in files):
        counters[".tar"] = lambda file: _tar_images(file, image_key, others)
    for ending, count in counters.items():
        if files and all(file.endswith(ending) for file in files):
            with ThreadPoolExecutor(16) as pool:
                found = sum(pool.map(count, files))
            warn_of_other_images(others, image_key)
            return found
    return None


def _parquet_rows(file: str, timeout: float) -> int:
    def rows() -> int:
        with fsspec.open(file, "rb") as opened:
            return int(pyarrow.parquet.read_metadata(opened).num_rows)

    try:
        return retry(rows, file, DataPatience(timeout)) if "://" in file else rows()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"{file} cannot be read as parquet: {one_line(error, 160)}") from error


def _tar_images(file: str, image_key: str, others: list[str]) -> int:
    """Images in a tar; those that are not read are added to ``others``."""
    count = 0
    with contextlib.suppress(tarfile.ReadError), tarfile.open(file) as tar:  # cut short: the reader will report it
        for member in tar:
            if member.isfile() and is_other_image(member.name, image_key):
                others.append(member.name)
            else:
                count += member.name.endswith(f".{image_key}")
    return count
