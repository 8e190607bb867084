"""Which columns of a data set hold its images and classes, and how a value of the class column becomes an index."""

import difflib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from dccd_timm.data.sources.class_map import ClassMap
from dccd_timm.data.sources.folders import shortened
from dccd_timm.errors import UserError
from dccd_timm.recipe import Images

if TYPE_CHECKING:
    from datasets import Features

_logger = logging.getLogger(__name__)

_IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "webp")
_TARGET_KEYS = ("label", "labels", "fine_label", "cls", "class", "target")
_TEXT = ("string", "large_string", "string_view")
_BYTES = ("binary", "large_binary", "binary_view")
_NUMBERS = ("int", "uint", "float", "decimal", "bool")  # beginnings of their types

# How images and their classes stand in a tar that is no folder of classes
TAR_FORM = (
    "in a tar, the files of an image stand one after another and share their name up to its first dot (7.jpg, 7.cls);"
    " class folders in a tar are read by --data-dir FILE.tar"
)

Feature = object  # of datasets: a feature type, or a dict or list of them


@dataclass(frozen=True)
class Labels:
    """The class column of a split.

    Args:
        key: its name; ``json/label`` is the field ``label`` of column ``json``.
        names: class names in index order, where they are known.
        to_index: a class index from a value that is there; raises UserError.
    """

    key: str
    names: list[str] | None
    to_index: Callable[[object], int]

    @property
    def column(self) -> str:
        """The column of the table."""
        return self.key.partition("/")[0]

    def index(self, value: object) -> int | None:
        """The class index of a value of the column, None for null and NaN.

        Raises:
            UserError: for a value that is no class.
        """
        _, _, inner = self.key.partition("/")
        for part in inner.split("/") if inner else ():
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        return self.to_index(value)


@dataclass(frozen=True)
class NoLabels(Labels):
    """In place of the class column of a split without labels: all its images have class 0, which nothing reads."""

    def index(self, value: object) -> int:
        """The same class whatever the value."""
        return _only_class(value)


def without_labels(image_key: str) -> NoLabels:
    """What reads image column ``image_key`` alone."""
    return NoLabels(image_key, None, _only_class)


def _only_class(value: object) -> int:
    return 0


def find_image_column(features: "Features", images: Images) -> str:
    """The image column: the one asked for, else one with a usual name, else the only one of its type.

    Raises:
        UserError: when there is none, or several and none has a usual name, or the images are not encoded.
    """
    from datasets import Image

    image_key = _find(images.input_key, features, _IMAGE_KEYS, Image, _holds_bytes, "image", "--input-key")
    if not _holds_images(features[image_key]):
        raise UserError(
            f"column {image_key} holds {_type_name(features[image_key])} and no encoded images: choose another"
            f" by --input-key ({', '.join(features)})"
        )
    return image_key


def find_columns(features: "Features", images: Images) -> tuple[str, str]:
    """The image column and the class column: those asked for, else with a usual name, else the only ones of their type.

    Raises:
        UserError: when there is none, or several and none has a usual name, or the images are not encoded.
    """
    from datasets import ClassLabel

    image_key = find_image_column(features, images)
    suits = _holds_classes if images.class_map else _holds_numbers
    fields = dict(_fields(features))
    return image_key, _find(images.target_key, fields, _TARGET_KEYS, ClassLabel, suits, "class", "--target-key")


def read_labels(key: str, features: "Features", class_map: ClassMap | None) -> Labels:
    """How class column ``key`` is read.

    Raises:
        UserError: when its type cannot hold a class, or it has names and there is no class map.
    """
    fields = dict(_fields(features))
    feature = fields[key]
    names = getattr(feature, "names", None)
    if names is not None:
        indices = class_map.indices(names) if class_map else list(range(len(names)))
        return Labels(key, class_map.names if class_map else list(names), partial(_position, key, list(names), indices))
    dtype = getattr(feature, "dtype", None)
    if dtype in _TEXT:
        if class_map is None:
            raise UserError(
                f"column {key} has names, not class indices: map them with --class-map FILE, a .txt of one name a line"
                " in the order of the classes (cat on the first line is class 0, dog on the second class 1)"
            )
        return Labels(key, class_map.names, class_map.index)
    if isinstance(feature, dict):
        inner = [name for name in fields if name.startswith(f"{key}/") and _holds_classes(fields[name])]
        found = [name for name in inner if name.rpartition("/")[2].lower() in _TARGET_KEYS]
        if len(found) != 1:
            raise UserError(f"column {key} holds fields, not one class: name one of {', '.join(inner) or 'none'}")
        return read_labels(found[0], features, class_map)
    if not _holds_classes(feature):
        others = ", ".join(name for name in fields if name != key and _holds_classes(fields[name]))
        raise UserError(
            f"column {key} holds {_type_name(feature)} and not one class index an image: choose another by --target-key"
            + (f" ({others})" if others else "")
            + ("; several labels of an image cannot be distilled" if _is_list(feature) else "")
        )
    if class_map is None:
        return Labels(key, ["False", "True"] if dtype == "bool" else None, partial(_integer, key))
    if dtype == "bool":
        return Labels(key, class_map.names, partial(_position, key, [0, 1], class_map.indices(["False", "True"])))
    if class_map.numbers:
        return Labels(key, class_map.names, class_map.index)
    return Labels(key, class_map.names, partial(_integer, key))


def _integer(key: str, value: object) -> int:
    """A number of column ``key`` as an index."""
    if not isinstance(value, int | float | Decimal) or value != value // 1:
        raise UserError(f"column {key} has the value {value!r}, which is no class index")
    index = int(value)
    if index < 0:
        raise UserError(
            f"column {key} has the class index {index}, which marks images without a class: choose another split,"
            " or leave them out of it"
        )
    return index


def _position(key: str, names: Sequence[object], indices: list[int], value: object) -> int:
    """The one of ``indices`` that belongs to a value of column ``key``, a number or one of the column's ``names``."""
    if isinstance(value, str) and value in names:
        return indices[names.index(value)]
    index = -1 if isinstance(value, str) else _integer(key, value)
    if not 0 <= index < len(names):
        raise UserError(f"column {key} has the class {value!r}, which is none of its {len(names)} classes")
    return indices[index]


def _find(
    wanted: str | None,
    fields: dict[str, Feature],
    usual: tuple[str, ...],
    kind: type,
    suits: Callable[[Feature], bool],
    what: str,
    flag: str,
) -> str:
    """The column that was asked for, else the first with a usual name, else the only one of the right kind."""
    if wanted:
        if wanted not in fields:
            near = difflib.get_close_matches(wanted, list(fields), n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(fields)}"
            raise UserError(f"the data set has no column {wanted}; {hint}")
        return wanted
    lower = {name.rpartition("/")[2].lower(): name for name in reversed(fields)}
    named = sorted((lower[name] for name in usual if name in lower), key=lambda name: "/" in name)
    typed = [name for name, feature in fields.items() if isinstance(feature, kind)]
    usable = [name for name in named if suits(fields[name])]
    in_tar = f"; {TAR_FORM}" if "__key__" in fields else ""
    if not usable and len(typed) > 1:
        raise UserError(f"{what} columns are {shortened(typed)}: choose one by {flag}{in_tar}")
    found = list(dict.fromkeys([*usable, *typed, *named]))
    if not found:
        way = ", or train without labels (--num-classes 0 --task-loss-weight 0)" if what == "class" else ""
        raise UserError(f"no {what} column found among {shortened(fields)}: name it with {flag}{way}{in_tar}")
    if len(found) > 1:
        _logger.warning("%s column is %s; there is also %s (%s)", what, found[0], ", ".join(found[1:]), flag)
    return found[0]


def _fields(features: dict[str, Feature], prefix: str = "") -> Iterator[tuple[str, Feature]]:
    """Columns, and after each its fields, as ``json/label``; but no fields of images."""
    for name, feature in features.items():
        yield prefix + name, feature
        if isinstance(feature, dict) and "bytes" not in feature:
            yield from _fields(feature, f"{prefix}{name}/")


def _holds_images(feature: Feature) -> bool:
    """Encoded images or their paths."""
    return _holds_bytes(feature) or getattr(feature, "dtype", None) in _TEXT


def _holds_bytes(feature: Feature) -> bool:
    """Encoded images, alone or in a struct with their paths."""
    if isinstance(feature, dict):
        return "bytes" in feature or "path" in feature
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", None) in _BYTES


def _holds_classes(feature: Feature) -> bool:
    """One number or text for each image."""
    return _holds_numbers(feature) or getattr(feature, "dtype", None) in _TEXT


def _holds_numbers(feature: Feature) -> bool:
    """One number for each image, or truth value."""
    dtype = getattr(feature, "dtype", None)
    return isinstance(dtype, str) and dtype.startswith(_NUMBERS)


def _is_list(feature: Feature) -> bool:
    return isinstance(feature, list) or type(feature).__name__ in ("List", "LargeList", "Sequence")


def _type_name(feature: Feature) -> str:
    if isinstance(feature, dict):
        return "fields"
    return "lists" if _is_list(feature) else str(getattr(feature, "dtype", type(feature).__name__))
