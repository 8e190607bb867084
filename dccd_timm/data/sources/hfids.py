"""``hfids/``: parquet, webdataset tars and image folders, on disk or on the Hub, through datasets' streaming.

What is opened here is a :class:`StreamSource`, read shard by shard, or a :class:`MapSource` where the files can be
listed: an image folder is one shard sorted by class, which no stream can shuffle.
"""

import contextlib
import difflib
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet
from timm.data.readers.class_map import load_class_map

from dccd_timm.data.patience import DataPatience, few_inner_retries
from dccd_timm.data.sources.timm_readers import MapSource, Record
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import limit_requests, retry
from dccd_timm.recipe import Recipe

_IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp")
_TARGET_KEYS = ("label", "labels", "fine_label", "cls", "class", "target")
# Rows that cross from Arrow to Python at a time: one by one costs ten times as much.
_ROWS = 32
# Seconds to wait for a Hub that does not answer when a run begins: then somebody sits before it.
_OPENING_SECONDS = 60.0


@dataclass
class StreamSource:
    """A split that is read in order, shard by shard, in loader workers only.

    A parquet stream that is left half-read aborts its process at exit, so the main process never reads one.
    """

    dataset: Any  # datasets.IterableDataset, undecoded, image and class columns only
    names: list[str] | None
    num_samples: int
    image_key: str
    target_key: str
    files: list[str]
    remote: bool
    class_to_idx: dict[Any, int] | None = None

    @property
    def num_shards(self) -> int:
        """Parts that can be read apart from each other."""
        return int(self.dataset.num_shards)

    def for_readers(self, readers: int) -> None:
        """Split further, by row groups of parquet files, when there are fewer shards than readers."""
        if self.num_shards < readers:
            self.dataset = self.dataset.reshard()

    def shard_name(self, shard: int) -> str:
        """What to call a shard in a message."""
        if len(self.files) == self.num_shards:
            return Path(self.files[shard]).name
        return f"part {shard} of {self.num_shards}"

    def rows(self, shard: int, start: int) -> Iterator[Record]:
        """Records of one shard from row ``start`` on; raises whatever datasets, Arrow and the Hub client raise."""
        limit_requests()
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

    def _index(self, target: Any) -> int | None:
        return target if self.class_to_idx is None or target is None else self.class_to_idx.get(target, -1)


class _Listing:
    """Images and classes of an image folder, by their paths."""

    def __init__(self, rows: list[tuple[str, int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, target = self.rows[index]
        if "://" not in path:
            return path, target
        with fsspec.open(path, "rb") as file:
            return file.read(), target

    def filename(self, index: int, absolute: bool = False) -> str:
        """Name of an image in messages."""
        return "/".join(self.rows[index][0].split("/")[-2:])


def open_stream(recipe: Recipe, split: str, is_training: bool) -> StreamSource | MapSource:
    """Open one split of ``hfids/<folder or Hub id>``.

    Raises:
        UserError: missing folder or data set, unknown configuration, split or column; one line with the mend.
    """
    import datasets  # slow to import, and absent on machines that read other sources
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    name = recipe.dataset.removeprefix("hfids/")
    path = _local_folder(name, recipe.data_dir)
    if path is None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(
            f"data folder {name} does not exist (--dataset hfids/FOLDER, relative to here or to --data-dir)"
        )
    few_inner_retries()
    limit_requests()
    seconds = 0.0 if path else min(_OPENING_SECONDS, recipe.data_timeout)

    def opened() -> Any:
        builder = datasets.load_dataset_builder(
            str(path or name), name=recipe.dataset_config, revision=None if path else recipe.dataset_revision
        )
        dataset = builder.as_streaming_dataset(split=split).decode(False)
        return builder, dataset if dataset.features else dataset._resolve_features()

    try:
        builder, dataset = opened() if path else retry(opened, name, DataPatience(seconds))
    except UserError:
        raise
    except Exception as error:  # datasets, its file systems and the Hub client raise dozens of kinds here
        place = f"data folder {path}" if path else f"{name} is no local folder, and as a Hub data set it"
        text = one_line(error)
        hint = "; choose one by --dataset-config" if "config" in text.lower() and not recipe.dataset_config else ""
        raise UserError(f"{place} cannot be opened, split {split}: {text}{hint}") from error
    features = dataset.features
    image_key = _column(recipe.input_key, features, _IMAGE_KEYS, datasets.Image, "image", "--input-key")
    target_key = _column(recipe.target_key, features, _TARGET_KEYS, datasets.ClassLabel, "class", "--target-key")
    names, class_to_idx = _classes(recipe, features[target_key], target_key)
    dataset = dataset.select_columns([image_key, target_key])
    files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
    if isinstance(builder, ImageFolder):
        rows = [(row[image_key]["path"], int(row[target_key])) for row in dataset]
        if not rows:
            raise UserError(f"no images in {name}, split {split}")
        return MapSource(_Listing(rows), names)
    wanted = recipe.train_num_samples if is_training else recipe.val_num_samples
    num_samples = wanted or _count(dataset, split, files, image_key, seconds)
    if num_samples is None:
        flag = "--train-num-samples" if is_training else "--val-num-samples"
        raise UserError(f"{name} does not say how many images split {split} has: give {flag}")
    if num_samples == 0:
        raise UserError(f"no images in {name}, split {split}")
    return StreamSource(dataset, names, num_samples, image_key, target_key, files, path is None, class_to_idx)


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


def _classes(recipe: Recipe, feature: Any, key: str) -> tuple[list[str] | None, dict[Any, int] | None]:
    """Class names in index order, and what maps the column to indices when it holds none."""
    if recipe.class_map:
        try:
            table = load_class_map(recipe.class_map, recipe.data_dir or "")
        except (OSError, AssertionError, ValueError) as error:
            raise UserError(f"--class-map {recipe.class_map} cannot be read: {error}") from error
        names = [str(name) for name, _ in sorted(table.items(), key=lambda item: item[1])]
        return names, table if getattr(feature, "dtype", "") == "string" else None
    if getattr(feature, "dtype", "") == "string":
        raise UserError(f"column {key} holds words, not class indices: map them with --class-map FILE")
    return getattr(feature, "names", None), None


def _count(dataset: Any, split: str, files: list[str], image_key: str, seconds: float) -> int | None:
    """Images of a split: from the data set's card, else from parquet footers or the headers of local tars."""
    info = (dataset.info.splits or {}).get(split)
    if info is not None and info.num_examples:
        return int(info.num_examples)
    counters: dict[str, Callable[[str], int]] = {".parquet": lambda file: _parquet_rows(file, seconds)}
    if not any("://" in file for file in files):
        counters[".tar"] = lambda file: _tar_images(file, image_key)
    for ending, count in counters.items():
        if files and all(file.endswith(ending) for file in files):
            with ThreadPoolExecutor(16) as pool:
                return sum(pool.map(count, files))
    return None


def _parquet_rows(file: str, seconds: float) -> int:
    def rows() -> int:
        with fsspec.open(file, "rb") as opened:
            return int(pyarrow.parquet.read_metadata(opened).num_rows)

    try:
        return retry(rows, file, DataPatience(seconds)) if "://" in file else rows()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"{file} cannot be read as parquet: {one_line(error, 160)}") from error


def _tar_images(file: str, image_key: str) -> int:
    count = 0
    with contextlib.suppress(tarfile.ReadError), tarfile.open(file) as tar:  # cut short: the reader will say so
        for member in tar:
            count += member.name.endswith(f".{image_key}")
    return count
