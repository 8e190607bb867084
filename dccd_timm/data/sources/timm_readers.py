"""Images with random access, and those of timm's readers: folders, ``torch/``, ``hfds/``, ``wds/`` ..."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm.data
from PIL import Image

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Recipe


@dataclass
class Record:
    """One undecoded image with its class index and a name to speak of it."""

    image: Any
    target: int | None
    name: str

    @property
    def nbytes(self) -> int:
        """Size of the undecoded image in bytes, as far as it is held."""
        data = self.image.get("bytes") if isinstance(self.image, dict) else self.image
        return len(data) if isinstance(data, bytes) else 0


@dataclass
class MapSource:
    """A split with random access, read by timm or torchvision; ``names`` are the class names in index order."""

    dataset: Any
    names: list[str] | None
    num_samples: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_samples = len(self.dataset)

    def record(self, index: int) -> Record:
        """The record at ``index``; raises OSError, ValueError or SyntaxError when its reader cannot read it."""
        if isinstance(self.dataset, timm.data.ImageDataset):
            image, target, *_ = self.dataset.reader[index]
            return Record(image, -1 if target is None else int(target), self.name(index))
        image, target = self.dataset[index]
        return Record(image, int(target), self.name(index))

    def name(self, index: int) -> str:
        """What to call an image in a message."""
        try:
            return str(self.dataset.filename(index, absolute=False))
        except (NotImplementedError, AttributeError, KeyError, AssertionError):
            return f"sample {index}"


@dataclass
class TimmStreamSource:
    """A split read in order by one of timm's own iterable readers (wds/, tfds/), which shard by rank themselves."""

    dataset: Any  # timm.data.IterableImageDataset
    names: list[str] | None
    num_samples: int

    def records(self) -> Iterator[Record]:
        """Records of one pass."""
        for number, (image, target, *_) in enumerate(self.dataset.reader):
            yield Record(image, int(target), f"record {number}")


def open_timm(recipe: Recipe, split: str, is_training: bool) -> MapSource | TimmStreamSource:
    """Open one split through ``timm.data.create_dataset``.

    Raises:
        UserError: missing or empty folder, unknown split, unreadable data set; one line with the mend.
    """
    if not recipe.dataset or recipe.dataset.split("/")[0] in ("folder", "tar"):
        if not recipe.data_dir:
            raise UserError("no data: set --data-dir FOLDER, or --dataset hfids/FOLDER")
        if not Path(recipe.data_dir).exists():
            raise UserError(f"data folder {recipe.data_dir} does not exist")
    num_samples = recipe.train_num_samples if is_training else recipe.val_num_samples
    try:
        dataset: Any = timm.data.create_dataset(
            recipe.dataset,
            root=recipe.data_dir,
            split=split,
            is_training=is_training,
            class_map=recipe.class_map,
            download=recipe.dataset_download,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            repeats=0,
            input_img_mode=image_mode(recipe),
            input_key=recipe.input_key,
            target_key=recipe.target_key,
            num_samples=num_samples,
        )
    except (AssertionError, RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        raise UserError(f"data set {recipe.dataset or recipe.data_dir}, split {split}: {one_line(error)}") from error
    class_to_idx = getattr(getattr(dataset, "reader", dataset), "class_to_idx", None) or {}
    names = [str(name) for name, _ in sorted(class_to_idx.items(), key=lambda item: item[1])] or None
    if len(dataset) == 0:
        raise UserError(f"no images in {recipe.data_dir} for split {split}")
    if isinstance(dataset, timm.data.IterableImageDataset):
        return TimmStreamSource(dataset, names, len(dataset))
    return MapSource(dataset, names or getattr(dataset, "classes", None))


def image_mode(recipe: Recipe) -> str:
    """PIL mode that images are converted to: grey for one channel, RGB else."""
    return recipe.input_img_mode or ("L" if recipe.in_chans == 1 else "RGB")


# Opened here once: PIL registers its decoders at the first open, and forked workers then share them.
Image.preinit()
