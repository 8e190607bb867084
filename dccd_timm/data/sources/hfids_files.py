"""What the files of an ``hfids/`` split say before they are read: how many images, and which classes."""

import json
import logging
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fsspec
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from dccd_timm.data.patience import DataPatience
from dccd_timm.data.sources.columns import TAR_FORM, Labels
from dccd_timm.data.sources.endings import is_other_image, warn_of_other_images
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import retry

if TYPE_CHECKING:
    from datasets import Features

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footer:
    """The end of a parquet file: its rows, the class names of its columns where it has some, and the rows of each of
    its row groups."""

    file: str
    rows: int
    names: dict[str, list[str]]
    groups: list[int] = field(default_factory=list)


def are_remote(files: list[str]) -> bool:
    """Whether files are addresses."""
    return any("://" in file for file in files)


def read_footers(files: list[str], timeout: float) -> list[Footer]:
    """The ends of parquet files, in their order; none where the files are of another kind.

    Raises:
        UserError: for a file that cannot be read.
    """
    if not all(file.endswith(".parquet") for file in files):
        return []
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda file: _read_footer(file, timeout), files))


def _read_footer(file: str, timeout: float) -> Footer:
    def footer() -> Footer:
        with fsspec.open(file, "rb") as opened:
            metadata = pyarrow.parquet.read_metadata(opened)
        groups = [int(metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)]
        return Footer(file, int(metadata.num_rows), _class_names(metadata.metadata or {}), groups)

    try:
        return retry(footer, file, DataPatience(timeout)) if "://" in file else footer()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(f"{file} cannot be read as parquet: {one_line(error, 160)}") from error


def row_groups(files: list[str], timeout: float) -> list[tuple[int, int]]:
    """For each row group of parquet files the number of its file, and of its first row in that file.

    Raises:
        UserError: for a file that cannot be read.
    """
    groups = [footer.groups for footer in read_footers(files, timeout)]
    return [(file, sum(sizes[:group])) for file, sizes in enumerate(groups) for group in range(len(sizes))]


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of the class columns, as datasets writes them into a file."""
    with suppress(KeyError, ValueError, AttributeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {key: feature["names"] for key, feature in features.items() if feature.get("_type") == "ClassLabel"}
    return {}


def with_own_names(
    features: "Features", column: str, footers: list[Footer], typed_by_card: bool, where: str
) -> "Features":
    """``features`` with the class names of the split's own files: another split gave the others, or the card.

    Raises:
        UserError: when two files number their classes otherwise.
    """
    own = _names_of_all(footers, column)
    given = getattr(features.get(column), "names", None)
    if own is None or given is None or own == given:
        return features
    if typed_by_card and sorted(own) != sorted(given):
        _logger.warning(
            "%s: the card has other class names than the files (%s ...): the card's are used", where, ", ".join(own[:3])
        )
        return features
    if typed_by_card:
        _logger.warning("%s: the card has the class names in another order than the files: the files' is used", where)
    return type(features)({**features, column: type(features[column])(names=own)})


def _names_of_all(footers: list[Footer], column: str) -> list[str] | None:
    """The class names that all files give; one may have more than another, after the same ones."""
    longest: Footer | None = None
    for footer in footers:
        names = footer.names.get(column)
        if names is None:
            continue
        known = longest.names[column] if longest else []
        if longest and any(a != b for a, b in zip(names, known, strict=False)):
            raise UserError(
                f"{os.path.basename(footer.file)} numbers the classes of column {column} otherwise than"
                f" {os.path.basename(longest.file)}: write both with the same names in the same order"
            )
        longest = footer if len(names) > len(known) else longest
    return longest.names[column] if longest else None


def check_classes(files: list[str], labels: Labels) -> None:
    """Read the class column of local parquet files, to stop at a value that is no class before anything is trained.

    Raises:
        UserError: for such a value; the file's name is before it.
    """
    for file in files:
        values: list[object] = []
        with suppress(OSError, pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):  # the reader will report it
            for column in pyarrow.parquet.ParquetFile(file).read(columns=[labels.column]).columns:  # none: it is broken
                nested = pyarrow.types.is_nested(column.type)
                values = column.to_pylist() if nested else pyarrow.compute.unique(column).to_pylist()
        for value in values:
            try:
                labels.index(value)
            except UserError as error:
                raise UserError(f"{os.path.basename(file)}: {error}") from error


def tar_hint(text: str) -> str:
    """What helps against an error ``text`` of datasets about the members of tars."""
    if "WebDataset format" in text:
        return f"; {TAR_FORM}"
    if "base 10: b'" in text:  # so .cls is read
        return "; .cls files hold class indices: write names as .txt files, and give --target-key txt and --class-map"
    return ""


def count_images(card: int | None, files: list[str], image_key: str, footers: list[Footer]) -> int | None:
    """Images of a split: from the ends of parquet files or the headers of local tars, else what the ``card`` says."""
    found = None
    others: list[str] = []
    if footers:
        found = sum(footer.rows for footer in footers)
    elif files and not are_remote(files) and all(file.endswith((".tar", ".tar.gz")) for file in files):
        with ThreadPoolExecutor(16) as pool:
            found = sum(pool.map(lambda file: _tar_images(file, image_key, others), files))
        warn_of_other_images(others, image_key)
    if found is None:
        return card
    if card is not None and card != found:
        _logger.warning("the data set's card says %d images, its files have %d: %d are an epoch", card, found, found)
    return found


def _tar_images(file: str, image_key: str, others: list[str]) -> int:
    """Members that datasets takes for field ``image_key`` of a sample; other images are added to ``others``."""
    from datasets.packaged_modules.webdataset.webdataset import base_plus_ext

    count = 0
    with suppress(tarfile.ReadError, EOFError), tarfile.open(file) as tar:  # cut short: the reader will report it
        for member in tar:
            if not member.isreg() or os.path.basename(member.name).startswith((".", "__")):
                continue
            if is_other_image(member.name, image_key):
                others.append(member.name)
            else:
                count += base_plus_ext(member.name)[1] == image_key
    return count
