"""Where images come from: ``hfids/`` through datasets as a stream, all other names through timm's readers."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import timm.data
from PIL import Image

from dccd_timm.recipe import Recipe, UserError

_IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp")
_TARGET_KEYS = ("label", "labels", "fine_label", "cls", "class", "target")


@dataclass
class Record:
    """One undecoded image with its class index and a name to speak of it."""

    image: Any
    target: int
    name: str


@dataclass
class MapSource:
    """A split with random access, read by timm or torchvision; ``names`` are the class names in index order."""

    dataset: Any
    names: list[str] | None
    num_samples: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_samples = len(self.dataset)

    def record(self, index: int) -> Record:
        """The record at ``index``; may raise OSError."""
        if isinstance(self.dataset, timm.data.ImageDataset):
            image, target, *_ = self.dataset.reader[index]
            return Record(image, -1 if target is None else int(target), self._name(index))
        image, target = self.dataset[index]
        return Record(image, int(target), f"sample {index}")

    def _name(self, index: int) -> str:
        try:
            return str(self.dataset.filename(index, absolute=False))
        except (NotImplementedError, AttributeError, KeyError, AssertionError):
            return f"sample {index}"


@dataclass
class StreamSource:
    """A split read in order by datasets' streaming."""

    dataset: Any  # datasets.IterableDataset, undecoded
    names: list[str] | None
    num_samples: int
    image_key: str
    target_key: str

    def records(self, dataset: Any) -> Iterator[Record]:
        """Records of ``dataset``, which is this source's data set, shuffled or sharded."""
        for number, row in enumerate(dataset):
            image = row[self.image_key]
            path = image.get("path") if isinstance(image, dict) else None
            yield Record(image, int(row[self.target_key]), path or f"record {number} of a shard")


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


AnySource = MapSource | StreamSource | TimmStreamSource


def open_split(recipe: Recipe, split: str, is_training: bool) -> AnySource:
    """Open one split of the recipe's data set.

    Raises:
        UserError: missing or empty folder, unknown split or column, unreadable data set; one line with the mend.
    """
    if recipe.dataset.startswith("hfids/"):
        return _open_stream(recipe, split, is_training)
    source = _open_timm(recipe, split, is_training)
    if source.num_samples == 0:
        raise UserError(f"no images in {recipe.data_dir} for split {split}")
    return source


def _open_timm(recipe: Recipe, split: str, is_training: bool) -> MapSource | TimmStreamSource:
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
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"data set {recipe.dataset or recipe.data_dir}, split {split}: {text}") from error
    class_to_idx = getattr(getattr(dataset, "reader", dataset), "class_to_idx", None) or {}
    names = [str(name) for name, _ in sorted(class_to_idx.items(), key=lambda item: item[1])] or None
    if isinstance(dataset, timm.data.IterableImageDataset):
        return TimmStreamSource(dataset, names, len(dataset))
    return MapSource(dataset, names or getattr(dataset, "classes", None))


def _open_stream(recipe: Recipe, split: str, is_training: bool) -> StreamSource:
    import datasets  # slow to import, and absent on machines that read other sources

    name = recipe.dataset.removeprefix("hfids/")
    path = _local_folder(name, recipe.data_dir)
    if path is None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(
            f"data folder {name} does not exist (--dataset hfids/FOLDER, relative to here or to --data-dir)"
        )
    try:
        dataset = datasets.load_dataset(str(path or name), split=split, streaming=True).decode(False)
        if dataset.features is None:
            dataset = dataset._resolve_features()
    except Exception as error:  # datasets, its file systems and the Hub client raise dozens of kinds here
        place = f"data folder {path}" if path else f"{name} is no local folder, and as a Hub data set it"
        text = " ".join(str(error).split())[:300]
        raise UserError(f"{place} cannot be opened, split {split}: {text}") from error
    features = dataset.features
    image_key = _column(recipe.input_key, features, _IMAGE_KEYS, datasets.Image, "image", "--input-key")
    target_key = _column(recipe.target_key, features, _TARGET_KEYS, datasets.ClassLabel, "class", "--target-key")
    names = getattr(features[target_key], "names", None)
    num_samples = recipe.train_num_samples if is_training else recipe.val_num_samples
    num_samples = num_samples or _count(dataset, split, path)
    if num_samples is None:
        flag = "--train-num-samples" if is_training else "--val-num-samples"
        raise UserError(f"{name} does not say how many images split {split} has: give {flag}")
    if num_samples == 0:
        raise UserError(f"no images in {name}, split {split}")
    return StreamSource(dataset, names, num_samples, image_key, target_key)


def _local_folder(name: str, data_dir: str | None) -> Path | None:
    places = [Path(name), *([Path(data_dir) / name] if data_dir else [])]
    return next((p for p in places if p.is_dir()), None)


def _column(wanted: str | None, features: Any, usual: tuple[str, ...], kind: type, what: str, flag: str) -> str:
    """The column that was asked for, else the first of the right kind, else the first with a usual name."""
    if wanted:
        if wanted not in features:
            near = difflib.get_close_matches(wanted, list(features), n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(features)}"
            raise UserError(f"the data set has no column {wanted}; {hint}")
        return wanted
    typed = [key for key, feature in features.items() if isinstance(feature, kind)]
    named = [key for key in usual if key in features]
    for key in [*(k for k in usual if k in typed), *typed, *named]:
        return key
    raise UserError(f"no {what} column found among {', '.join(features)}: name it with {flag}")


def _count(dataset: Any, split: str, path: Path | None) -> int | None:
    """Images of a split: from the data set's card, else from the footers of local parquet files."""
    info = (dataset.info.splits or {}).get(split)
    if info is not None and info.num_examples:
        return int(info.num_examples)
    if path is None:
        return None
    import datasets

    files = (datasets.load_dataset_builder(str(path)).config.data_files or {}).get(split, [])
    if not files or not all(str(f).endswith(".parquet") for f in files):
        return None
    return sum(pyarrow.parquet.read_metadata(str(f)).num_rows for f in files)


def image_mode(recipe: Recipe) -> str:
    """PIL mode that images are converted to: grey for one channel, RGB else."""
    return recipe.input_img_mode or ("L" if recipe.in_chans == 1 else "RGB")


# Opened here once: PIL registers its decoders at the first open, and forked workers then share them.
Image.preinit()
