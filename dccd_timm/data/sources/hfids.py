"""``hfids/``: parquet, webdataset tars and image folders, on disk or on the Hub, opened through datasets' streaming."""

import contextlib
import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from timm.data.readers.class_map import load_class_map

from dccd_timm.data.patience import DataPatience, disable_inner_retries, is_of_network, is_offline
from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.endings import datasets_misses, warn_of_left_out
from dccd_timm.data.sources.folders import find_split, number_listed
from dccd_timm.data.sources.hfids_folder import HfidsFolder
from dccd_timm.data.sources.hfids_stream import HfidsStream, count_images
from dccd_timm.data.sources.timm_readers import open_timm
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import limit_requests, retry
from dccd_timm.recipe import Images, Recipe
from dccd_timm.recipe.data import local_folder

if TYPE_CHECKING:
    from datasets import DatasetBuilder, Features, IterableDataset

_IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp")
_TARGET_KEYS = ("label", "labels", "fine_label", "cls", "class", "target")
# Seconds to wait for a Hub that does not answer when a run begins, while its user is likely to watch.
_OPENING_SECONDS = 60.0


def open_hfids(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split of ``hfids/<folder or Hub id>``.

    Raises:
        UserError: missing folder or data set, unknown configuration, split or column; one line with the fix.
    """
    import datasets  # slow to import, and absent on machines that read other sources
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    name = images.dataset.removeprefix("hfids/")
    folder = local_folder(images.dataset, images.data_dir)
    if folder is None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(_no_such_name(name))
    root = _split_folder(folder, split) if folder else None
    if root and datasets_misses(root):
        return open_timm(replace(images, dataset="", data_dir=str(folder), input_key=None), split, is_training, None)
    disable_inner_retries()
    limit_requests()
    timeout = 0.0 if folder else min(_OPENING_SECONDS, images.data_timeout)
    builder, dataset = _open(images, name, folder, split, timeout)
    features = dataset.features
    image_key = _column(images.input_key, features, _IMAGE_KEYS, datasets.Image, "image", "--input-key")
    target_key = _column(images.target_key, features, _TARGET_KEYS, datasets.ClassLabel, "class", "--target-key")
    names, class_to_idx = _classes(images, features, target_key)
    dataset = dataset.select_columns([image_key, target_key])
    files = [str(file) for file in (builder.config.data_files or {}).get(split, [])]
    if isinstance(builder, ImageFolder):
        rows = [(row[image_key]["path"], int(row[target_key])) for row in dataset]
        if not rows:
            raise UserError(f"no images in {name}, split {split}")
        if root:
            warn_of_left_out(str(root), (path for path, _ in rows))
        if names and not images.class_map:
            rows, names = number_listed(rows, names)
        return HfidsFolder(rows, names)
    num_samples = num_samples or count_images(dataset, split, files, image_key, timeout)
    if num_samples is None:
        of_run = "--train-num-samples" if is_training else "--val-num-samples"
        flag = of_run if isinstance(images, Recipe) else "--num-samples"  # validate.py has one split
        raise UserError(f"{name} does not say how many images split {split} has: give {flag}")
    if num_samples == 0:
        raise UserError(f"no images in {name}, split {split}")
    return HfidsStream(dataset, names, num_samples, image_key, target_key, files, folder is None, class_to_idx)


def _split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split in a local data set, where it has one."""
    with contextlib.suppress(UserError):
        if (root := find_split(folder, split)) != folder:
            return root
    return None


def _no_such_name(name: str) -> str:
    """What is wrong with a name that is neither a folder nor that of a data set of the Hub."""
    if found := re.fullmatch(r"(?:https?://[^/]+/)?datasets/([\w.-]+/[\w.-]+?)(?:/.*)?", name):
        return f"--dataset hfids/{name} is an address: the data set is hfids/{found[1]}"
    if found := re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)[@:](.+)", name):
        return f"{name} does not exist: a branch, tag or commit of hfids/{found[1]} is --dataset-revision {found[2]}"
    return f"data folder {name} does not exist (--dataset hfids/FOLDER, relative to here or to --data-dir)"


def _open(
    images: Images, name: str, folder: Path | None, split: str, timeout: float
) -> "tuple[DatasetBuilder, IterableDataset]":
    """The builder and the undecoded split; a Hub is tried again for ``timeout`` seconds."""
    import datasets

    def opened() -> "tuple[DatasetBuilder, IterableDataset]":
        builder = datasets.load_dataset_builder(
            str(folder or name), name=images.dataset_config, revision=None if folder else images.dataset_revision
        )
        dataset = builder.as_streaming_dataset(split=split).decode(False)
        return builder, dataset if dataset.features else dataset._resolve_features()

    patience = DataPatience(timeout, "start again")
    try:
        return opened() if folder or is_offline() else retry(opened, name, patience, is_of_network)
    except UserError:
        raise
    except Exception as error:  # datasets, its file systems and the Hub client raise dozens of kinds here
        what = f"data folder {folder}" if folder else f"{name} is no local folder, and as a Hub data set it"
        text = one_line(error).rstrip(".")
        raise UserError(f"{what} cannot be opened, split {split}: {text}{_hint(text, images, folder)}") from error


def _hint(text: str, images: Images, folder: Path | None) -> str:
    """What helps against the error ``text`` of datasets."""
    if not folder and is_offline():
        return "; HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set, and there is no copy of it here: unset it"
    if "scripts are no longer supported" in text:
        return "; the Hub may have converted it: try --dataset-revision refs/convert/parquet"
    if "doesn't exist on the Hub" in text or "gated" in text:
        return "; check the name, and ask for access where it is private or gated: `hf auth login`, or set HF_TOKEN"
    return "; choose one by --dataset-config" if "config" in text.lower() and not images.dataset_config else ""


def _column(wanted: str | None, features: "Features", usual: tuple[str, ...], kind: type, what: str, flag: str) -> str:
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
        return str(key)
    raise UserError(f"no {what} column found among {', '.join(features)}: name it with {flag}")


def _classes(images: Images, features: "Features", key: str) -> tuple[list[str] | None, dict[str, int] | None]:
    """Class names in index order; and the map from names to indices where column ``key`` holds names."""
    is_text = getattr(features[key], "dtype", "") == "string"
    if images.class_map:
        try:
            table = load_class_map(images.class_map, images.data_dir or "")
        except (OSError, AssertionError, ValueError) as error:
            raise UserError(f"--class-map {images.class_map} cannot be read: {error}") from error
        names = [str(name) for name, _ in sorted(table.items(), key=lambda item: item[1])]
        return names, table if is_text else None
    if is_text:
        raise UserError(f"column {key} has names, not class indices: map them with --class-map FILE")
    return getattr(features[key], "names", None), None
