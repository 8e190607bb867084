"""``hfids/`` image folders, on disk or on the Hub: as a stream they would be one shard sorted by class, so the files
are listed and read with random access."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import fsspec

from dccd_timm.data.decode import Record
from dccd_timm.data.patience import disable_inner_retries
from dccd_timm.data.sources.base import common_folder
from dccd_timm.data.sources.class_map import ClassMap
from dccd_timm.data.sources.columns import find_columns, read_labels
from dccd_timm.data.sources.folders import check_nesting, check_one_split, check_strays, is_split_name, number_listed
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.errors import UserError
from dccd_timm.network import limit_requests
from dccd_timm.recipe import Images

if TYPE_CHECKING:
    from datasets import IterableDataset
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder


def open_image_folder(
    builder: "ImageFolder", dataset: "IterableDataset", images: Images, split: str, class_map: ClassMap | None
) -> "HfidsFolder":
    """One split of class folders, or of images with a metadata file, also inside zip files.

    Raises:
        UserError: for no images, images without classes, or a class without a name in the class map.
    """
    name = images.dataset.partition("/")[2]
    if images.is_unlabelled:
        return HfidsFolder([(path, 0) for path in _paths(builder, name, split)], None)
    if set(dataset.features) <= {"image", "label"} and not metadata_files(builder):
        found = _class_folders(builder, name, split, getattr(dataset.features.get("label"), "names", []))
        if class_map:
            indices = class_map.indices(found.names or [])
            return HfidsFolder([(path, indices[target or 0]) for path, target in found.images], class_map.names)
        return found
    image_key, target_key = find_columns(dataset.features, images)
    labels = read_labels(target_key, dataset.features, class_map)
    rows = dataset.select_columns([image_key, labels.column])
    listed = [(row[image_key]["path"], labels.index(row[labels.column])) for row in rows]
    if not listed:
        raise UserError(f"no images in {name}, split {split}")
    source = HfidsFolder(listed, labels.names)
    source.columns = (image_key, labels.key)
    return source


def metadata_files(builder: "ImageFolder") -> list[str]:
    """The tables of labels in an image folder."""
    names = builder.config.metadata_filenames or builder.METADATA_FILENAMES
    files = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    return [file for file in files if file.endswith(tuple(f"/{name}" for name in names))]


def _class_folders(builder: "ImageFolder", name: str, split: str, names: list[str]) -> "HfidsFolder":
    """A class for each folder that has images; ``names`` are those of all splits, as far as datasets finds them.

    datasets itself takes the folder of a zip file for the class of the images in it.
    """
    paths = _paths(builder, name, split)
    inner = [path.partition("::")[0] for path in paths]
    root = common_folder(inner)
    in_root = ["/" not in path.removeprefix(root) for path in inner]
    if all(in_root) and not is_split_name(root.split("/")[-2]):  # the folder of the only class
        in_root = [False] * len(paths)
    check_strays(root.rstrip("/"), sum(in_root), len(paths))
    labels = ["" if stray else path.split("/")[-2] for path, stray in zip(inner, in_root, strict=True)]
    if len(builder.config.data_files or {}) == 1:
        check_one_split(inner, split)
    check_nesting(root.rstrip("/"), inner, labels)
    found = {*labels} - {""}
    classes = names if found <= set(names) else sorted(found)
    listed = [(path, classes.index(label)) for path, label in zip(paths, labels, strict=True) if label]
    return HfidsFolder(*number_listed(listed, classes))


def _paths(builder: "ImageFolder", name: str, split: str) -> list[str]:
    """Those of all images of a split."""
    builder.config.drop_labels, builder.info.features = True, None
    rows = builder.as_streaming_dataset(split=split).decode(False)
    paths = [path for path in (str(row["image"]["path"]) for row in rows) if not _is_hidden(path)]
    if not paths:
        raise UserError(f"no images in {name}, split {split}")
    return paths


def _is_hidden(path: str) -> bool:
    """Whether it is one of the files that macOS adds to a zip."""
    return "/._" in path or "__MACOSX/" in path


class HfidsFolder(IndexedSource):
    """Images by their paths or addresses, with class indices, None for an image without a class."""

    def __init__(self, images: Sequence[tuple[str, int | None]], names: list[str] | None) -> None:
        self.images, self.names, self.num_samples = images, names, len(images)
        self.root = common_folder([path for path, _ in images])

    def paths(self) -> Sequence[str]:
        """Those of its images."""
        return [path.partition("::")[0] for path, _ in self.images]

    def record(self, index: int) -> Record:
        """The image at ``index``; a local one is opened when it is decoded."""
        path, target = self.images[index]
        if "://" not in path:
            return Record(path, target, self.name(index))
        limit_requests()  # in this worker
        disable_inner_retries()
        with fsspec.open(path, "rb") as file:
            return Record(file.read(), target, self.name(index))

    def name(self, index: int) -> str:
        """Path below the folder that all images are in."""
        return self.images[index][0].removeprefix(self.root)
