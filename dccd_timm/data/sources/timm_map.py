"""timm's readers with random access: folders, tars, ``torch/``, ``hfds/``."""

import timm.data
from torchvision.datasets import VisionDataset

from dccd_timm.data.decode import Record
from dccd_timm.data.sources.indexed import IndexedSource


class TimmMapSource(IndexedSource):
    """A split that timm opened: a reader of timm's or a data set of torchvision's."""

    def __init__(self, dataset: VisionDataset | timm.data.ImageDataset, names: list[str] | None) -> None:
        self.dataset, self.names, self.num_samples = dataset, names, len(dataset)

    def record(self, index: int) -> Record:
        """The record at ``index``; raises OSError, ValueError or SyntaxError when its reader cannot read it."""
        if isinstance(self.dataset, timm.data.ImageDataset):
            image, target, *_ = self.dataset.reader[index]
            return Record(image, -1 if target is None else int(target), self.name(index))
        image, target = self.dataset[index]
        return Record(image, int(target), self.name(index))

    def name(self, index: int) -> str:
        """Name of an image in messages."""
        try:
            return str(self.dataset.filename(index, absolute=False))
        except (NotImplementedError, AttributeError, KeyError, AssertionError):
            return f"sample {index}"
