"""Where the images are, how they are read, and how many at a time."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dccd_timm.recipe.option import NoEffect, Values, option, without

_data = partial(option, group="Data")
NO_VALIDATION = without("val_split", "val_split is empty")
TORCHVISION_FOLDERS = ("torch/folder", "torch/image_folder")


def reader_of(dataset: str) -> str:
    """What reads a --dataset: the part before its first slash, or "folder" for class folders and tars of them."""
    reader, slash, _ = dataset.lower().partition("/")
    return reader if slash and reader in ("hfids", "hfds", "tfds", "wds", "torch") else "folder"


def local_folder(dataset: str, data_dir: str | None) -> Path | None:
    """The folder of ``hfids/FOLDER``, relative to here or to --data-dir; None for a data set of the Hub."""
    name = dataset.partition("/")[2] if reader_of(dataset) == "hfids" else dataset
    candidates = [Path(name), *([Path(data_dir) / name] if data_dir else [])]
    return next((path for path in candidates if path.is_dir()), None)


def only_of(*readers: str) -> NoEffect:
    """No effect with other readers than these."""
    listed = ", ".join("image folders" if reader == "folder" else f"{reader}/" for reader in readers)
    return NoEffect(lambda v: _is_given(v) and reader_of(v["dataset"]) not in readers, f"only {listed} use it")


def _is_given(v: Values) -> bool:
    """Whether there is a data set: without one, its opening says so."""
    return bool(v["dataset"] or v["data_dir"])


def _is_beside_a_stream(v: Values) -> bool:
    """Whether images come from ``hfids/`` and neither they nor a class map are looked for below --data-dir."""
    if reader_of(v["dataset"]) != "hfids" or (v["class_map"] and not Path(v["class_map"]).exists()):
        return False
    below = Path(v["data_dir"] or "") / v["dataset"].partition("/")[2]
    if not below.is_dir() and below.parent.is_dir() and below.parent != Path(v["data_dir"] or ""):
        return False  # a typing error in the last part of a folder below it
    return local_folder(v["dataset"], v["data_dir"]) == local_folder(v["dataset"], None)


_BESIDE_A_STREAM = NoEffect(_is_beside_a_stream, "the images are those of dataset, which is no folder below it")


def _is_local(v: Values) -> bool:
    return reader_of(v["dataset"]) == "hfids" and local_folder(v["dataset"], v["data_dir"]) is not None


_LOCAL = NoEffect(_is_local, "dataset is a folder, which has no revisions")
_RAISE = NoEffect(lambda v: v["data_errors"] == "raise", "data_errors raise stops at the first")
_FIXED = NoEffect(lambda v: v["train_batches_per_epoch"] is not None, "train_batches_per_epoch fixes the epoch")
_SIZED = only_of("hfids", "wds", "tfds")


@dataclass(frozen=True)
class Images:
    """Where the images of a split are and how they are read; training and validation have it in common."""

    data_dir: str | None = _data(
        None, "root folder of the data set", published="file", no_effect=(_BESIDE_A_STREAM,), measures=True, usual=True
    )
    dataset: str = _data(
        "",
        "hfids/<local folder or hub id> streams; folder, torch/, hfds/, wds/ ... as in timm",
        published="dataset",
        measures=True,
        usual=True,
    )
    dataset_config: str | None = _data(
        None, "configuration of a Hub data set that has several", no_effect=(only_of("hfids", "hfds"),), measures=True
    )
    dataset_revision: str | None = _data(
        None, "branch, tag or commit of a Hub data set", no_effect=(only_of("hfids", "hfds"), _LOCAL), measures=True
    )
    dataset_download: bool = _data(
        False,
        "let timm's torch/, hfds/ and tfds/ readers download the data set",
        no_effect=(only_of("torch", "hfds", "tfds"),),
        resume="free",
    )
    class_map: str = _data(
        "",
        "text file that maps class names to indices",
        published="file",
        no_effect=(only_of("folder", "hfids", "hfds", "tfds", "wds"),),
        measures=True,
    )
    input_img_mode: str | None = _data(
        None, "PIL mode of the images (default: L for 1 channel, RGB for 3)", measures=True, views=True
    )
    input_key: str | None = _data(None, "column of the images (default: found by its name)", measures=True)
    target_key: str | None = _data(
        None,
        "column of the class indices (default: found by its name)",
        no_effect=(only_of("hfids", "hfds", "tfds", "wds"),),
        measures=True,
    )
    data_errors: Literal["skip", "raise"] = _data(
        "skip", "skip images and shards that cannot be read, or stop", resume="free"
    )
    max_data_errors: int = _data(
        100, "stop when more images than this could not be read", low=0, no_effect=(_RAISE,), resume="free"
    )
    data_timeout: float = _data(
        600.0, "seconds without data after which a Hub data set is given up", low=1, resume="free"
    )
    workers: int = _data(4, "loader processes per rank", "-j", low=0, resume="free")
    pin_mem: bool = _data(False, "pin CPU memory for faster copies to the GPU", resume="free")
    no_prefetcher: bool = _data(False, "normalise in the loader's workers and not on the device", views=True)
    batch_size: int = _data(128, "images per rank and step; each brings --dccd-views views", "-b", low=1, usual=True)
    seed: int = option(42, "random seed", group="Run")
    in_chans: int | None = option(None, "image channels (default: 3)", low=1, group="Model")

    @property
    def is_unlabelled(self) -> bool:
        """Whether the images are read without labels; a training may say so."""
        return False


@dataclass(frozen=True)
class Data(Images):
    """Splits and batches of a training."""

    train_split: str = _data("train", "training split")
    val_split: str = _data("validation", "validation split; empty for none", measures=True)
    probe_split: str = _data(
        "",
        "num_classes 0: labelled split among whose images those of val_split, labelled too, have their neighbours",
        no_effect=(NoEffect(lambda v: v["num_classes"] != 0, "num_classes is not 0"), NO_VALIDATION),
        measures=True,
    )
    train_num_samples: int | None = _data(
        None, "images in the training split, for streams that do not say", low=1, no_effect=(_SIZED,)
    )
    val_num_samples: int | None = _data(
        None,
        "images in the validation split, for streams that do not say",
        low=1,
        no_effect=(_SIZED, NO_VALIDATION),
        measures=True,
    )
    pil_views: bool = _data(
        False, "draw training views with Pillow as timm does, and not with faster uint8 kernels", views=True
    )
    validation_batch_size: int | None = _data(
        None, "images per rank in validation", "-vb", low=1, no_effect=(NO_VALIDATION,), resume="free"
    )
    train_batches_per_epoch: int | None = _data(
        None, "fixed number of loader batches per epoch", "--train-steps-per-epoch", low=1
    )
    aug_repeats: float = _data(
        0.0, "if above 0: each image so often in a row, augmented anew, in an epoch of as many images as ever", low=0
    )
    epoch_repeats: float = _data(0.0, "passes over the data per epoch, if above 0", low=0, no_effect=(_FIXED,))
