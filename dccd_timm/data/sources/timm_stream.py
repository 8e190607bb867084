"""timm's own streams, ``wds/`` and ``tfds/``, which shard and shuffle themselves; resumed at whole epochs only."""

import copyreg
from collections.abc import Iterable, Iterator

from timm.data import IterableImageDataset
from timm.data.readers.shared_count import SharedCount
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dccd_timm.batch import Batch
from dccd_timm.data.decode import Reader, Record, Sample
from dccd_timm.data.sources.base import Reading, Source, TrainOrder


def _reduce_count(count: SharedCount) -> tuple[type[SharedCount], tuple[int]]:
    return SharedCount, (count.value,)


# A reader's epoch is shared through a lock that cannot be sent to a worker; each worker sets the epoch itself.
copyreg.pickle(SharedCount, _reduce_count)


class TimmStreamSource(Source):
    """A split read in order by one of timm's iterable readers."""

    numbered = False

    def __init__(self, dataset: IterableImageDataset, names: list[str] | None, num_samples: int) -> None:
        self.dataset, self.names, self.num_samples = dataset, names, num_samples

    def records(self, epoch: int) -> Iterator[Record]:
        """Records of one pass, as many as the reader gives this worker; they have no names and come in any order."""
        info = get_worker_info()
        rank = getattr(self.dataset.reader, "dist_rank", 0)
        for number, (image, target, *_) in enumerate(self.dataset.reader):
            name = f"record {number} of worker {info.id if info else 0} on rank {rank} in pass {epoch + 1}"
            yield Record(image, int(target), name)

    def train_loader(self, reading: Reading, order: TrainOrder) -> Iterable[Batch | None]:
        """One epoch each time it is iterated, from the epoch of ``order`` on."""
        return _Epochs(TimmStreamViews(self, reading.reader, order.stream.epoch), reading)

    def eval_loader(self, reading: Reading) -> Iterable[Batch]:
        """Each image that the reader gives this rank."""
        return self.loader(TimmStreamViews(self, reading.reader), reading, drop_last=False)

    def loader(self, views: "TimmStreamViews", reading: Reading, drop_last: bool) -> DataLoader[Sample]:
        """A DataLoader over one epoch of the views."""
        self.dataset.set_loader_cfg(num_workers=reading.options.num_workers)
        return DataLoader(
            views,
            batch_size=reading.batch_size,
            drop_last=drop_last,
            collate_fn=reading.collate,
            **vars(reading.options),
        )


class TimmStreamViews(IterableDataset[Sample]):
    """Samples of one epoch of a stream of timm's."""

    def __init__(self, source: TimmStreamSource, reader: Reader, epoch: int = 0) -> None:
        self.source, self.reader, self.epoch = source, reader, epoch

    def __iter__(self) -> Iterator[Sample]:
        if self.reader.seed is not None:
            self.source.dataset.reader.set_epoch(self.epoch)
        for number, record in enumerate(self.source.records(self.epoch)):
            yield self.reader.sample(record, self.epoch, number)


class _Epochs:
    """Whole batches of an epoch; of the next one each time that they are iterated to the end."""

    def __init__(self, views: TimmStreamViews, reading: Reading) -> None:
        self.views, self.loader = views, views.source.loader(views, reading, drop_last=True)

    def __iter__(self) -> Iterator[Batch]:
        yield from self.loader
        self.views.epoch += 1
