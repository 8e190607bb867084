"""timm's readers with random access: folders, tars, ``torch/``."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from timm.data import ImageDataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torchvision.datasets import DatasetFolder

from dccd_timm.data.decode import Record
from dccd_timm.data.sources.indexed import IndexedSource

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


class TimmMapSource(IndexedSource):
    """A split that timm opened: a reader of timm's or a data set of torchvision's.

    Args:
        dataset: the split.
        names: class names in index order.
        mapped: the index that a class map gives to each of the data set's own ones.
    """

    def __init__(
        self, dataset: "VisionDataset[Any] | ImageDataset", names: list[str] | None, mapped: list[int] | None = None
    ) -> None:
        self.dataset, self.names, self.mapped, self.num_samples = dataset, names, mapped, len(dataset)

    def paths(self) -> Sequence[str]:
        """Those of its images in folders, else the root of all."""
        reader = getattr(self.dataset, "reader", self.dataset)
        if isinstance(reader, ReaderImageFolder | DatasetFolder):
            return [str(path) for path, *_ in reader.samples]
        root = self.folder or getattr(reader, "root", None)
        return [str(root)] if root else []

    def record(self, index: int) -> Record:
        """The record at ``index``; raises OSError, ValueError or SyntaxError when its reader cannot read it."""
        if isinstance(self.dataset, ImageDataset):
            image, target, *_ = self.dataset.reader[index]
        else:
            image, target = self.dataset[index]
        number = -1 if target is None else int(target)
        return Record(image, self.mapped[number] if self.mapped and number >= 0 else number, self.name(index))

    def name(self, index: int) -> str:
        """Name of an image in messages: its file's below the folder, else its number, since other names may repeat."""
        filename = None
        if isinstance(self.dataset, ImageDataset):
            # some of timm's readers know no names
            with contextlib.suppress(NotImplementedError, AttributeError, KeyError, AssertionError):
                filename = self.dataset.filename(index, absolute=False)
            if isinstance(self.dataset.reader, ReaderImageFolder):
                return str(filename)
        return f"sample {index} ({filename})" if filename else f"sample {index}"
