"""``--class-map``: a file that numbers class names, and what must be true of it before it numbers a data set."""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm.data.readers.class_map import load_class_map

from dccd_timm.errors import UserError, composed, one_line
from dccd_timm.recipe import Images

_logger = logging.getLogger(__name__)

# Classes that a message names.
_NAMED = 5


@dataclass(frozen=True)
class ClassMap:
    """A class map: its file and the index of each name; a pickled one may number a data set's indices instead."""

    file: str
    table: dict[str, int] | dict[int, int]

    @property
    def numbers(self) -> bool:
        """Whether it maps the data set's own indices, and not names."""
        return all(isinstance(key, int) for key in self.table)

    @property
    def names(self) -> list[str]:
        """Class names in index order; an index without a name has its number as one, and with several names all."""
        found: list[list[str]] = [[] for _ in range(max(self.table.values()) + 1)]
        for name, index in self.table.items():
            found[index].append(str(name))
        return [" or ".join(names) or str(index) for index, names in enumerate(found)]

    def indices(self, names: Sequence[str]) -> list[int]:
        """The map's index of each of a data set's class names.

        Raises:
            UserError: when the map lacks one: its images would be lost, or get another name.
        """
        wanted: Sequence[str | int] = range(len(names)) if self.numbers else [composed(name) for name in names]
        known = set(wanted)
        missing = [name for name in wanted if name not in self.table]
        unused = [name for name in self.table if name not in known]
        if missing:
            raise UserError(self._lacks(missing, unused))
        if unused:
            _logger.warning("--class-map %s: the data set has no class %s", self.file, _listed(unused))
        return [self.table[name] for name in wanted]  # type: ignore[index]  # its keys are of one kind

    def index(self, name: object) -> int:
        """The map's index of one class.

        Raises:
            UserError: when the map lacks it.
        """
        key = composed(name) if isinstance(name, str) else name
        if key not in self.table:
            raise UserError(self._lacks([name], []))
        return self.table[key]  # type: ignore[index]  # as above

    def _lacks(self, missing: Sequence[object], unused: Sequence[str | int]) -> str:
        near = difflib.get_close_matches(str(missing[0]), map(str, unused), n=1, cutoff=0.4)
        hint = f", only {near[0]!r}" if near else ""
        return (
            f"--class-map {self.file} has no class {_listed(missing)}{hint}: it must name every class of the data set"
        )


def read_class_map(images: Images) -> ClassMap | None:
    """The file of ``--class-map``, beside the program or below ``--data-dir``; None without one.

    Raises:
        UserError: for a file that is missing, empty or ambiguous.
    """
    if not images.class_map:
        return None
    try:
        if Path(images.class_map).suffix.lower() == ".txt":
            candidates = [Path(images.class_map), Path(images.data_dir or "", images.class_map)]
            file = next((file for file in candidates if file.exists()), candidates[0])
            table: dict[str, int] | dict[int, int] = _numbered(file.read_text(encoding="utf-8-sig").split("\n"))
        else:
            table = _checked(load_class_map(images.class_map, images.data_dir or ""))
    except Exception as error:  # unpickling raises any kind
        raise UserError(f"--class-map {images.class_map} cannot be read: {one_line(error)}") from error
    return ClassMap(images.class_map, table)


def _numbered(lines: list[str]) -> dict[str, int]:
    """Lines to indices; empty lines at the end do not count."""
    names = "\n".join(composed(line.strip()) for line in lines).rstrip("\n").split("\n")
    table: dict[str, int] = {}
    for index, name in enumerate(names):
        if not name:
            raise ValueError("it is empty" if len(names) == 1 else f"line {index + 1} is empty")
        if table.setdefault(name, index) != index:
            raise ValueError(f"line {index + 1} repeats {name!r}")
    return table


def _checked(table: dict[str, int] | dict[int, int]) -> dict[str, int] | dict[int, int]:
    """A pickled map from names, or from indices, to indices."""
    if not table:
        raise ValueError("it is empty")
    for kind in (str, int):
        if all(type(key) is kind for key in table) and all(type(v) is int and v >= 0 for v in table.values()):
            return {composed(str(key)): index for key, index in table.items()} if kind is str else table
    raise ValueError("it must map names to indices")


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + more
