"""Image folders: which folder is a split, which of its folders are classes, and in which order these are numbered."""

import itertools
import logging
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from timm.data.readers.reader_image_in_tar import ReaderImageInTar

from dccd_timm.data.sources.base import common_folder
from dccd_timm.errors import UserError

_logger = logging.getLogger(__name__)

# Names that timm takes for one another, and further ones that a split has.
_SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("train", "training"), ("val", "valid", "validation", "eval", "evaluation"), ("test", "testing"), ("dev",),
)  # fmt: skip
_SPLIT_NAMES = {name for names in _SYNONYMS for name in names}
_SPLIT_LIKE = re.compile(rf"({'|'.join(sorted(_SPLIT_NAMES))})([\W_\d].*)?", re.IGNORECASE)
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
# Names that one line lists.
_SHOWN = 8


def class_order(names: Iterable[str]) -> list[str]:
    """Class folders in the order of their indices: timm's natural order, in which ``c2`` precedes ``c10``, and names
    that are equal there, as ``Cat`` and ``cat`` or ``1`` and ``01``, by their characters."""
    return sorted(names, key=lambda name: (_natural_key(name), name))


def _natural_key(name: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def find_split(root: Path, split: str) -> Path:
    """The folder of a split: the one of its name or of a synonym, else ``root`` where it has no folders for splits.

    Raises:
        UserError: when ``root`` has other splits, or the name is not one that a split usually has.
    """
    if root.is_file() or not split:
        return root
    if "[" in split:
        raise UserError(f"split {split}: image folders are read whole, parts of a split only with hfds/ and tfds/")
    same = next((names for names in _SYNONYMS[:2] if split in names), ())
    for name in (split, *same):
        if (root / name).is_dir():
            return root / name
    inner = {name: _folders(root / name) for name in _folders(root)}
    is_usual = split.lower() in _SPLIT_NAMES
    if is_usual and not _splits(inner):
        return root
    raise UserError(
        f"{root} has no folder for split {split}, it has {shortened(class_order(inner)) or 'none'}: name one of them"
        " (--train-split, --val-split; --split in validate.py)"
    )


def _splits(inner: dict[str, list[str]]) -> list[str]:
    """The folders among ``inner``, which gives the folders in each, that hold class folders and not images of a class:
    those with a split's name, and those that have a folder in common."""
    counts: dict[str, int] = {}
    for name in itertools.chain.from_iterable(inner.values()):
        counts[name] = counts.get(name, 0) + 1
    return [
        name for name, folders in inner.items()
        if folders and (_SPLIT_LIKE.fullmatch(name) or any(counts[folder] > 1 for folder in folders))
    ]  # fmt: skip


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


class ClassFolders(Protocol):
    """What timm's and torchvision's readers of class folders have in common: files with class indices."""

    root: str
    samples: list[tuple[str, int]]
    class_to_idx: dict[str, int]


def number_classes(reader: ClassFolders) -> None:
    """Leave out hidden files and folders, and number the classes by :func:`class_order`.

    Raises:
        UserError: for images without class folders.
    """
    root = str(reader.root)
    samples = [sample for sample in reader.samples if not _is_hidden(os.path.relpath(sample[0], root))]
    found = {index: name for name, index in reader.class_to_idx.items()}
    labels = [found[index] for _, index in samples]
    check_strays(root, labels.count(""), len(labels))
    check_nesting(root, [path for path, _ in samples], labels)
    reader.class_to_idx = {name: index for index, name in enumerate(class_order({*labels} - {""}))}
    pairs = zip(samples, labels, strict=True)
    reader.samples = _totally_ordered([(path, reader.class_to_idx[label]) for (path, _), label in pairs if label])


def number_tar(reader: ReaderImageInTar) -> None:
    """:func:`number_classes` for the class folders in a tar, or for a folder with a tar of each class."""
    found = {index: name for name, index in reader.class_name_to_idx.items()}
    # names may begin with ./, and beside the class folders timm takes that for a class
    names = [os.path.normpath(os.path.join(found[index], sample[0].name)) for sample, index in _members(reader)]
    labels = ["" if found[index] in ("", ".") else found[index] for _, index in _members(reader)]
    seen = [not _is_hidden(name) for name in names]
    check_strays(str(reader.root), list(itertools.compress(labels, seen)).count(""), sum(seen))
    seen = [keep and label != "" for keep, label in zip(seen, labels, strict=True)]
    labels = list(itertools.compress(labels, seen))
    if reader.root_is_tar:
        inner = [os.path.normpath(sample[0].name) for sample, _ in itertools.compress(_members(reader), seen)]
        paths = [os.path.join(reader.root, name) for name in inner]
        check_one_split(paths)
        check_nesting(str(reader.root), paths, labels)
    reader.class_name_to_idx = {name: index for index, name in enumerate(class_order(set(labels)))}
    reader.samples = reader.samples[np.array(seen)]
    reader.targets = np.array([reader.class_name_to_idx[label] for label in labels])


def _members(reader: ReaderImageInTar) -> list[tuple[tuple[tarfile.TarInfo, ...], int]]:
    return list(zip(reader.samples, reader.targets.tolist(), strict=True))


def number_listed(images: list[tuple[str, int]], names: list[str]) -> tuple[list[tuple[str, int]], list[str]]:
    """Files that datasets listed, with class indices, and the names of the classes: as :func:`number_classes` would
    number them where the classes are the files' folders, in datasets' own order; else as they are."""
    folders = [posixpath.basename(posixpath.dirname(path.split("::")[0])) for path, _ in images]
    labels = [names[index] for _, index in images]
    if names != sorted(names) or folders != labels:  # a card or a metadata file numbers them
        return images, names
    ordered = class_order(set(labels))  # datasets also counts the classes of other splits
    indices = {name: index for index, name in enumerate(ordered)}
    return [(path, indices[label]) for (path, _), label in zip(images, labels, strict=True)], ordered


def is_split_name(folder: str) -> bool:
    """Whether a folder of this name, or without one, is taken for a split and not for a class."""
    return not folder or _SPLIT_LIKE.fullmatch(folder) is not None


def check_strays(root: str, strays: int, images: int) -> None:
    """Warn of ``strays`` that lie beside the class folders of ``images`` in all.

    Raises:
        UserError: when there are no others.
    """
    if strays and strays == images:
        raise UserError(
            f"{root} has {strays} images and no class folders: without classes they can be neither learned nor"
            f" evaluated; move each into a folder of its class ({os.path.join(root, '<class>')})"
        )
    if strays:
        _logger.warning("%s: %d images that lie beside the class folders have no class and are left out", root, strays)


def check_nesting(root: str, paths: Iterable[str], labels: Iterable[str]) -> None:
    """Warn of classes whose images come from several folders of one name, and of class folders inside others.

    Raises:
        UserError: when that leaves one class, as with ``cat/photos`` and ``dog/photos``.
    """
    folders: dict[str, set[str]] = {}
    for folder, label in set(zip(map(posixpath.dirname, paths), labels, strict=True)):
        if label and posixpath.basename(folder) == label:
            folders.setdefault(label, set()).add(posixpath.relpath(folder, root))
    merged = [name for _, found in sorted(folders.items()) if len(found) > 1 for name in sorted(found)]
    if merged and len(folders) == 1:
        raise UserError(
            f"{root} has one class, {posixpath.basename(merged[0])}: its images are in {shortened(merged)}, and the"
            " innermost folder is the class; move them one folder up"
        )
    if merged:
        _logger.warning("%s: folders of the same name are one class: %s", root, shortened(merged))
    every = set().union(*folders.values())
    inner = sorted(name for name in every if any(str(outer) in every for outer in PurePosixPath(name).parents))
    if inner:
        _logger.warning("%s: class folders inside others are classes of their own: %s", root, shortened(inner))


def check_one_split(files: list[str], split: str = "train") -> None:
    """Check the ``files`` of the only split that was found: those of others are in it in an archive of all, or where
    datasets does not know their names, as ``Train`` and ``Test``.

    Raises:
        UserError: names them.
    """
    root = common_folder(files) if files else ""
    names = {file.removeprefix(root).split("/")[0] for file in files}
    words: dict[int, str] = {}
    for name in sorted(names):
        if found := _SPLIT_LIKE.fullmatch(name):
            words.setdefault(next(n for n, same in enumerate(_SYNONYMS) if found[1].lower() in same), name)
    if split == "train" and len(words) > 1:
        raise UserError(
            f"{root.rstrip('/')} has {' and '.join(words.values())}, which would be read as one split: name them train,"
            " validation and test, in small letters, and where they are in one archive, unpack it"
        )


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or f"{os.sep}." in path


def _totally_ordered(samples: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Samples in timm's order, in which those that it takes for equal no longer stand as the file system lists them."""
    ordered: list[tuple[str, int]] = []
    for _, same in itertools.groupby(samples, key=lambda sample: _LEADING_ZEROS.sub("", sample[0].lower())):
        ordered += sorted(same)
    return ordered


def shortened(names: Iterable[str]) -> str:
    """A few of many names, for one line."""
    listed = list(names)
    more = f" ... ({len(listed)} in all)" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
