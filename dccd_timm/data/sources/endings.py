"""Which files of an image folder are images, by their endings; those that are left out are counted and named."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dccd_timm.data.sources.folders import shortened

_logger = logging.getLogger(__name__)

# What Pillow reads, in small letters; timm by itself looks for the first three only.
ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jpf", ".tga", ".pcx", ".dds", ".qoi", ".sgi", ".ico",
)  # fmt: skip
# What makes a folder more than one of class folders for datasets: labels in a table, or images in containers.
_OTHER_DATA = {".parquet", ".arrow", ".csv", ".jsonl", ".tar", ".zip", ".gz", ".tgz"}


def warn_of_left_out(root: str, listed: Iterable[str]) -> None:
    """Warn of the files below ``root`` that a reader did not take, by ending and class, and of folders without images.

    Hidden files are no data.
    """
    taken = {os.path.normpath(path) for path in listed}
    left_out: Counter[tuple[str, str]] = Counter()
    empty = []
    for folder, inner, files in walk(root):
        others = [name for name in files if os.path.normpath(os.path.join(folder, name)) not in taken]
        left_out.update((os.path.splitext(name)[1].lower(), os.path.basename(folder)) for name in others)
        if len(others) == len(files) and not inner:
            empty.append(os.path.basename(folder))
    if left_out:
        endings = Counter[str]()
        for (ending, _), count in left_out.items():
            endings[ending] += count
        parts = [
            f"{count} {ending or 'without ending'} in {shortened(sorted(c for e, c in left_out if e == ending))}"
            for ending, count in sorted(endings.items())
        ]
        _logger.warning("%s: files that are not read as images: %s", root, "; ".join(parts))
    if empty:
        _logger.warning("%s: folders without an image, which are no classes: %s", root, shortened(sorted(empty)))


def is_other_image(member: str, image_key: str) -> bool:
    """Whether a member of a tar is an image that is not read as the field ``image_key`` of a sample.

    What follows the first dot of a name is the field, so ``v1.07.png`` is no ``png``.
    """
    name = os.path.basename(member)
    if name.startswith((".", "__")) or os.path.splitext(name)[1].lower() not in ENDINGS:
        return False
    return name.partition(".")[2] != image_key


def warn_of_other_images(members: list[str], image_key: str) -> None:
    """Warn of :func:`is_other_image` members of the tars of a split."""
    if members:
        _logger.warning(
            "the tars have %d images that are not read, since their names are not .%s from their first dot on: %s",
            len(members), image_key, shortened(sorted(members)),
        )  # fmt: skip


def datasets_misses(root: Path) -> bool:
    """Whether ``root`` holds class folders with images that datasets does not list: behind links to folders, or with
    endings that it does not know."""
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    unknown = {ending for ending in ENDINGS if ending not in ImageFolder.EXTENSIONS}
    missed = root.is_symlink()
    for folder, inner, files in walk(str(root)):
        endings = {os.path.splitext(name)[1].lower() for name in files}
        if endings & _OTHER_DATA:
            return False
        missed |= bool(endings & unknown) or any(os.path.islink(os.path.join(folder, name)) for name in inner)
    return missed


def walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Folders below ``root``, also behind links, with what is in them, hidden ones left out."""
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield folder, inner, [name for name in files if not name.startswith(".")]
