"""Whose answers a folder holds, to which views of which images: another teacher, view or image is refused."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dccd_timm.atomic import write_text
from dccd_timm.errors import UserError, one_line

Values = dict[str, object]  # JSON
Belongings = dict[str, Values]  # by subject

FILE = "answers.json"
_VERSION = 1
_SHOWN = 12  # characters of a hash


@dataclass(kw_only=True)
class TeacherFacts:
    """What a run needs to know of a teacher that it does not load.

    Args:
        options: by which the run that wrote the answers named it.
        files: a hash of its files where they are on this machine, else empty.
        num_classes: of its head.
        num_parameters: of the teacher.
        has_features: whether it gives pooled features, which the report compares.
        input_size: channels, height and width of the images that it sees.
        sees: what is done to a student's images before, for people.
        stages: channels, height and width of the map of every stage, where a term reads maps.
        gmacs: billions of multiply-accumulates for one image, None where they cannot be counted.
        draws: random numbers that its making took from the generator, None where they could not be counted.
        network: its name, size and origin, as report.json has them.
    """

    options: Values
    files: str
    num_classes: int
    num_parameters: int
    has_features: bool
    input_size: tuple[int, int, int]
    sees: str
    stages: list[tuple[int, int, int]]
    gmacs: float | None
    draws: int | None
    network: Values = field(default_factory=dict)


@dataclass(kw_only=True)
class Identity:
    """The contents of answers.json.

    ``belongs`` is all that an answer depends on, by subject; ``images`` are those of the split.
    """

    belongs: Belongings
    teacher: TeacherFacts
    images: int

    @classmethod
    def read(cls, folder: Path) -> "Identity | None":
        """That of a folder, None where it has none.

        Raises:
            UserError: for a file that is not ours.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("version") != _VERSION:
                raise ValueError("of another version of dccd-timm")
            facts = values.pop("teacher")
            facts["input_size"] = tuple(facts["input_size"])
            facts["stages"] = [tuple(shape) for shape in facts["stages"]]
            return cls(**values, teacher=TeacherFacts(**facts))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} does not describe a teacher's answers: {one_line(error, 120)}") from error

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        write_text(folder / FILE, json.dumps({"version": _VERSION, **asdict(self)}, indent=2) + "\n")

    def check(self, belongs: Belongings, folder: Path) -> None:
        """Refuse answers that do not belong to what ``belongs`` says, all of it or some subjects.

        Raises:
            UserError: names what differs.
        """
        wanted = json.loads(json.dumps(belongs))
        found = differences({subject: self.belongs.get(subject) for subject in wanted}, wanted)
        if found:
            more = f" and {len(found) - 4} more" if len(found) > 4 else ""
            raise UserError(
                f"the answers in {folder} are not those of this run, which differs in {', '.join(found[:4])}{more}:"
                " give another folder to --kd-cache"
            )


def differences(kept: object, wanted: object, name: str = "") -> list[str]:
    """One phrase for each value that is not the same in both: its name, the kept one and the wanted one."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        names = [*kept, *(key for key in wanted if key not in kept)]
        parts = (differences(kept.get(key), wanted.get(key), f"{name} {key}".strip()) for key in names)
        return [phrase for part in parts for phrase in part]
    return [] if kept == wanted else [f"{name} {_shown(kept)} -> {_shown(wanted)}"]


def _shown(value: object) -> str:
    if isinstance(value, list):
        text = " ".join(map(_shown, value)) or "none"
        return text if len(text) <= 40 else f"{len(value)} values"
    text = "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
    return text[:_SHOWN] if len(text) == 64 else text
