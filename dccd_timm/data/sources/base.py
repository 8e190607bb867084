"""What every source of images offers to the loaders, and what it is given to read them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from typing import Protocol

import torch

from dccd_timm.batch import Batch
from dccd_timm.data.collate import Collate
from dccd_timm.data.decode import Reader
from dccd_timm.data.stream import StreamStart


@dataclass(frozen=True)
class LoaderOptions:
    """Options of the DataLoader that do not depend on the source; the names are torch's."""

    num_workers: int
    timeout: float
    pin_memory: bool
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: BaseContext | None
    generator: torch.Generator


@dataclass(frozen=True)
class Reading:
    """How one rank reads a split.

    Args:
        reader: decodes and augments records.
        collate: samples to a batch.
        batch_size: images of a batch of this rank.
        rank, world: this process among all.
        timeout: seconds without data after which a remote source is given up.
        options: of the DataLoader.
    """

    reader: Reader
    collate: Collate
    batch_size: int
    rank: int
    world: int
    timeout: float
    options: LoaderOptions


@dataclass(frozen=True)
class TrainOrder:
    """The order of training: its seed, the batches of an epoch on a rank, and where to begin.

    ``given`` batches of this rank came before; ``stream`` says the same for sources that are read in order.
    ``repeats`` is how often each image comes in a row, where the source has random access.
    """

    seed: int
    batches: int
    given: int = 0
    stream: StreamStart = field(default_factory=StreamStart)
    repeats: float = 1


class Source(Protocol):
    """One split, opened. A class that derives from it need only say how it is read."""

    names: list[str] | None  # class names in index order
    num_samples: int
    folder: str | None = None  # that it has all images of
    columns: tuple[str, str] | None = None  # of images and classes, where the split is a table
    indices: list[int] | None = None  # of the classes in names, by their indices in the records, where these differ
    numbered: bool = True  # whether an image has the same number in every pass

    def renumber(self, names: list[str]) -> None:
        """Number the classes as in ``names``, which has all of them."""
        order = {name: index for index, name in enumerate(names)}
        moved = [order[name] for name in self.names or ()]
        self.indices = moved if self.indices is None else [moved[index] for index in self.indices]
        self.names = names

    def paths(self) -> Sequence[str]:
        """Files and addresses of its images, or of its shards, as far as known; other images have others, or newer
        files."""
        return [self.folder] if self.folder else []

    def fingerprint(self) -> str:
        """A hash of which images it has, in which order: their names below the folder that all are in, sizes, number
        and classes. It reads none of them."""
        digest = hashlib.sha256(f"{self.num_samples} {self.names} {self.indices}".encode(errors="surrogateescape"))
        paths = [str(path) for path in self.paths()]
        start = len(common_folder(paths)) if paths else 0
        for path in paths:
            digest.update(f"{path[start:]} {_size(path)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    @property
    def shuffle_block(self) -> int | None:
        """Images that are shuffled at a time where that is less than the split and data must come shuffled."""
        return None

    def fit_workers(self, workers: int, world: int) -> int:
        """Loader workers per rank to use where ``workers`` are wanted; called before anything is read."""
        return workers

    def layout(self, workers: int) -> dict[str, int]:
        """What a saved position in this source depends on, beside its size and the batches."""
        return {}

    def train_loader(self, reading: Reading, order: TrainOrder) -> Iterable[Batch | None]:
        """Batches of one rank, None is left out: endless, or one epoch each time it is iterated."""
        ...

    def eval_loader(self, reading: Reading) -> Iterable[Batch]:
        """Batches of one rank; the ranks together give each image once."""
        ...


def _size(path: str) -> int | None:
    """Bytes of a file; None for a folder or an address."""
    try:
        return os.path.getsize(path) if os.path.isfile(path) else None
    except (OSError, ValueError):
        return None


def common_folder(paths: list[str]) -> str:
    """The folder, with its slash, that all ``paths`` or addresses are in; at least one is given."""
    shared = os.path.commonprefix([min(paths), max(paths)])  # noqa: RUF071 - cut at a slash; commonpath spoils "://"
    return shared.rpartition("/")[0] + "/"
