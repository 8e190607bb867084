"""Reading with random access: what all sources share whose images have an index."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace

from torch.utils.data import DataLoader, Dataset

from dccd_timm.batch import Batch
from dccd_timm.data.decode import Reader, Record, Sample
from dccd_timm.data.sampler import EpochSampler
from dccd_timm.data.sources.base import Reading, Source, TrainOrder

# Neighbours that are tried in place of an unreadable image before it is left out.
_RETRIES = 20


class IndexedSource(Source):
    """A split with random access: shuffled whole, read by any number of workers, resumed at any batch."""

    @abstractmethod
    def record(self, index: int) -> Record:
        """The record at ``index``; raises OSError, ValueError or SyntaxError when it cannot be read."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of an image in messages; no other image of the split has it."""

    def train_loader(self, reading: Reading, order: TrainOrder) -> Iterable[Batch | None]:
        """Endless batches; an unreadable image is replaced by a neighbour."""
        sampler = EpochSampler(
            self.num_samples, reading.batch_size, order.batches, order.seed, reading.rank, reading.world, order.given,
            order.repeats,
        )  # fmt: skip
        images = IndexedViews(self, reading.reader, retries=_RETRIES)
        return DataLoader(images, batch_sampler=sampler, collate_fn=reading.collate, **vars(reading.options))

    def eval_loader(self, reading: Reading) -> Iterable[Batch]:
        """Each ``world``-th image."""
        part = [(0, index) for index in range(reading.rank, self.num_samples, reading.world)]
        images = IndexedViews(self, reading.reader, retries=1)
        return DataLoader(
            images, batch_size=reading.batch_size, sampler=part, collate_fn=reading.collate, **vars(reading.options)
        )


class IndexedViews(Dataset[Sample]):
    """Samples of a source with random access; an index is (epoch, index), so that workers need not know the epoch.

    A further copy of an image in the same epoch has its number as third part, and is augmented by it in another way.

    Args:
        source: the split.
        reader: decodes and augments.
        retries: images that are tried, the wanted one and its neighbours.
    """

    def __init__(self, source: IndexedSource, reader: Reader, retries: int) -> None:
        self.source, self.reader, self.retries = source, reader, retries

    def __getitem__(self, position: tuple[int, ...]) -> Sample:
        epoch, index, *copy = position
        skipped: list[tuple[str, int]] = []
        for _ in range(self.retries):
            sample = self._sample(epoch, index, *copy)
            skipped += sample.skipped
            if sample.views is not None:
                return replace(sample, skipped=skipped)
            index = (index + 1) % self.source.num_samples
        return Sample(None, -1, skipped)

    def _sample(self, epoch: int, index: int, *copy: int) -> Sample:
        try:
            record = self.source.record(index)
        except (OSError, ValueError, SyntaxError) as error:  # what PIL raises inside other people's data sets
            return Sample.skipping(self.source.name(index), error)
        return self.reader.sample(record, epoch, index, *copy)
