"""timm's readers with random access: folders, tars, ``torch/``, ``hfds/``."""

import contextlib
from typing import TYPE_CHECKING, Any

from timm.data import ImageDataset

from dccd_timm.data.decode import Record
from dccd_timm.data.sources.indexed import IndexedSource

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


class TimmMapSource(IndexedSource):
    """A split that timm opened: a reader of timm's or a data set of torchvision's."""

    def __init__(self, dataset: "VisionDataset[Any] | ImageDataset", names: list[str] | None) -> None:
        self.dataset, self.names, self.num_samples = dataset, names, len(dataset)

    def record(self, index: int) -> Record:
        """The record at ``index``; raises OSError, ValueError or SyntaxError when its reader cannot read it."""
        if isinstance(self.dataset, ImageDataset):
            image, target, *_ = self.dataset.reader[index]
            return Record(image, -1 if target is None else int(target), self.name(index))
        image, target = self.dataset[index]
        return Record(image, int(target), self.name(index))

    def name(self, index: int) -> str:
        """Name of an image in messages."""
        if isinstance(self.dataset, ImageDataset):
            # some of timm's readers know no names
            with contextlib.suppress(NotImplementedError, AttributeError, KeyError, AssertionError):
                return str(self.dataset.filename(index, absolute=False))
        return f"sample {index}"
