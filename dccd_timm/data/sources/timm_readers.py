"""All data sets but ``hfids/`` and ``hfds/``: opened by timm, whose readers have random access or are streams."""

import importlib.util
from pathlib import Path
from typing import cast

import timm.data
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torchvision.datasets import ImageFolder

from dccd_timm.data.decode import image_mode
from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.class_map import read_class_map
from dccd_timm.data.sources.endings import ENDINGS, warn_of_left_out
from dccd_timm.data.sources.folders import ClassFolders, find_split, number_classes, number_tar
from dccd_timm.data.sources.timm_map import TimmMapSource
from dccd_timm.data.sources.timm_stream import TimmStreamSource
from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Images
from dccd_timm.recipe.data import TORCHVISION_FOLDERS, reader_of
from dccd_timm.recipe.folders import check_data_folder

_STREAMS = ("tfds/", "wds/")
_PACKAGES = {"tfds": ("tensorflow", "tensorflow_datasets"), "wds": ("webdataset",)}


def open_timm(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split through ``timm.data.create_dataset``.

    Raises:
        UserError: missing or empty folder, unknown split, unreadable data set; one line with the fix.
    """
    is_folder = reader_of(images.dataset) == "folder" or images.dataset.lower() in TORCHVISION_FOLDERS
    root = _folder(images, split) if is_folder else images.data_dir
    timm.data.set_img_extensions(ENDINGS)
    _check_package(images.dataset)
    class_map = read_class_map(images)
    is_stream = images.dataset.lower().startswith(_STREAMS)
    try:
        dataset = timm.data.create_dataset(
            images.dataset,
            root=root,
            split=split,
            search_split=False,
            is_training=is_training,
            class_map=dict(class_map.table) if class_map and is_stream else {},  # all others are mapped below
            download=images.dataset_download,
            batch_size=images.batch_size,
            seed=images.seed,
            repeats=0,
            input_img_mode=image_mode(images),
            input_key=images.input_key,
            target_key=images.target_key,
            num_samples=num_samples,
        )
    except (AssertionError, RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        if is_folder:
            _refuse_other_data(Path(images.data_dir or ""))
        raise UserError(f"data set {images.dataset or images.data_dir}, split {split}: {one_line(error)}") from error
    reader = getattr(dataset, "reader", dataset)
    _number(reader)
    if len(dataset) == 0:
        raise UserError(f"no images in {root} for split {split}")
    names = _class_names(reader)
    if isinstance(dataset, timm.data.IterableImageDataset):
        return TimmStreamSource(dataset, class_map.names if class_map else names, len(dataset))
    mapped = class_map.indices(names) if class_map and names else None
    source = TimmMapSource(dataset, class_map.names if class_map else names, mapped)
    source.folder = root if is_folder else None
    return source


def _folder(images: Images, split: str) -> str:
    """The folder of a split below --data-dir."""
    check_data_folder(images)
    return str(find_split(Path(images.data_dir or ""), split))


def _check_package(dataset: str) -> None:
    """Refuse a reader whose package is missing: timm prints, and does not say which one to install."""
    packages = _PACKAGES.get(reader_of(dataset), ())
    if any(importlib.util.find_spec(package) is None for package in packages):
        names = " ".join(package.replace("_", "-") for package in packages)
        raise UserError(f"--dataset {dataset} needs a package that is not installed: pip install {names}")


def _refuse_other_data(root: Path) -> None:
    """Say how tables and archives are read, where a folder without images has some, or is one."""
    folder = root.parent if root.is_file() else root
    if root.suffix == ".parquet" or next(folder.rglob("*.parquet"), None):
        raise UserError(f"{root} has no images but parquet files: give --dataset hfids/{folder} in place of --data-dir")
    if root.suffix == ".arrow" or next(folder.rglob("*.arrow"), None):
        raise UserError(
            f"{root} has no images but Arrow files, as datasets' save_to_disk writes them: write them with to_parquet"
            " into a folder, and give --dataset hfids/FOLDER"
        )
    if root.suffix == ".zip" or next(folder.rglob("*.zip"), None):
        raise UserError(f"{root} has no images but zip files: give --dataset hfids/{folder} in place of --data-dir")
    if root.suffix == ".gz" or next(folder.rglob("*.tar*"), None):
        raise UserError(
            f"{root} has no images but tars: give --data-dir FILE.tar for a tar of class folders without compression,"
            f" or --dataset hfids/{folder} for tars of samples (7.jpg, 7.cls)"
        )


def _number(reader: object) -> None:
    """Number the classes of a reader of class folders."""
    if isinstance(reader, ReaderImageFolder | ImageFolder):
        warn_of_left_out(str(reader.root), (path for path, _ in reader.samples))
        number_classes(cast(ClassFolders, reader))
    elif isinstance(reader, ReaderImageInTar):
        number_tar(reader)


def _class_names(reader: object) -> list[str] | None:
    """Class names in index order, where a reader of timm's or a data set of torchvision's knows them."""
    class_to_idx = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None) or {}
    if not class_to_idx:
        names = getattr(reader, "classes", None)  # of several words each with torchvision's ImageNet
        return names and [name if isinstance(name, str) else ", ".join(name) for name in names]
    return [str(name) for name, _ in sorted(class_to_idx.items(), key=lambda item: item[1])]
