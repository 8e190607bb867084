"""report.json as dataclasses: what a run reports, written once and read typed by everybody.

An unknown key is ignored and a missing one gets its default, so that reports of other versions load. Shares and
accuracies are in percent.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dccd_timm.atomic import write_text

# Names of unreadable images that a report gives of each split.
NAMED = 20


def _optional() -> Any:
    """A field that stays out of report.json while it is None."""
    return field(default=None, metadata={"omit_none": True})


class JsonDataclass:
    """A dataclass that becomes JSON objects and comes back from them, nested dataclasses included."""

    def to_json(self) -> dict[str, object]:
        """Plain dictionaries and lists."""
        return {
            f.name: _to_json(getattr(self, f.name))
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if not (f.metadata.get("omit_none") and getattr(self, f.name) is None)
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> Self:
        """Read what :meth:`to_json` wrote, by this version or another."""
        kinds = typing.get_type_hints(cls)
        return cls(**{name: _from_json(kinds[name], part) for name, part in values.items() if name in kinds})


@dataclass(kw_only=True)
class Origin(JsonDataclass):
    """Where weights come from; ``hub_id``, ``commit`` and ``license`` where they are known."""

    name: str = ""
    hub_id: str | None = _optional()
    commit: str | None = _optional()
    license: str | None = _optional()


@dataclass(kw_only=True)
class NetworkReport(Origin):
    """The teacher, the student or its control; ``parameters_m`` in millions.

    ``head`` is "none" for a teacher of which the features alone are used, or a student that has no other, "probe" for a
    teacher that got a linear head. ``knn`` and ``probe`` are the accuracies of k-NN and of a linear head on features.
    ``loss``, ``top1`` and ``top5`` are None without validation, ``agreement`` (the images to which it gives the
    teacher's class) without a teacher, ``start`` for a network whose first weights were random. ``label`` names a
    control.
    """

    method: str | None = None
    head: str | None = _optional()
    parameters_m: float = 0.0
    loss: float | None = _optional()
    top1: float | None = _optional()
    top5: float | None = _optional()
    agreement: float | None = _optional()
    knn: float | None = _optional()
    probe: float | None = _optional()
    start: Origin | None = _optional()
    label: str | None = _optional()

    @property
    def classifies(self) -> bool:
        """Whether it gives classes."""
        return self.head != "none"


@dataclass(kw_only=True)
class Hardware(JsonDataclass):
    """What a run ran on: number of processes, type of device, precision."""

    world: int = 1
    device: str = "cpu"
    precision: str = "float32"


@dataclass(kw_only=True)
class Channels(JsonDataclass):
    """How redundant a network's pooled features are."""

    effective_rank: float = 0.0
    mean_abs_correlation: float = 0.0
    channels: int = 0


@dataclass(kw_only=True)
class Matched(JsonDataclass):
    """Mean correlation of the teacher's channels with what a linear map reads of them from the student's, before and
    after training, and from the control's."""

    before: float = 0.0
    after: float = 0.0
    control: float | None = _optional()


@dataclass(kw_only=True)
class Redundancy(JsonDataclass):
    """The channels of every network."""

    student: Channels = field(default_factory=Channels)
    student_before_training: Channels = field(default_factory=Channels)
    teacher: Channels | None = _optional()
    control: Channels | None = _optional()
    student_teacher: Matched | None = _optional()


@dataclass(kw_only=True)
class ClassReport(JsonDataclass):
    """One class: its number of images and each network's accuracy on them; ``change`` is the student's gain in points
    over the reference."""

    name: str = ""
    images: int = 0
    student: float = 0.0
    teacher: float | None = _optional()
    control: float | None = _optional()
    change: float = 0.0


@dataclass(kw_only=True)
class ConfusedPair(JsonDataclass):
    """The share of the images of class ``true`` that each network takes for class ``answer``."""

    true: str = ""
    answer: str = ""
    student: float = 0.0
    teacher: float | None = _optional()
    control: float | None = _optional()


@dataclass(kw_only=True)
class Classes(JsonDataclass):
    """The answers: accuracy by class beside ``reference``, the pairs most often confused, how student and teacher
    compare image by image."""

    reference: str = "nothing"
    control: str = ""
    per_class: list[ClassReport] = field(default_factory=list)
    confused: list[ConfusedPair] = field(default_factory=list)
    outcomes: dict[str, float] = field(default_factory=dict)
    agreement: float | None = None


@dataclass(kw_only=True)
class Following(JsonDataclass):
    """How a network's logits follow the teacher's through a minor change of the images.

    ``correlation`` is that of both changes of the logits, over images and classes, ``norm_ratio`` the norm of the
    network's by the teacher's. ``flips`` are the images whose class changes, ``flip_agreement`` those for which it
    does so in both networks among those for which it does in either, in percent. None where nothing changes.
    """

    correlation: float | None = None
    norm_ratio: float | None = None
    flips: float = 0.0
    flip_agreement: float | None = None


@dataclass(kw_only=True)
class ChangeReport(JsonDataclass):
    """One minor change: the images in percent whose class changes for the teacher, and how the others follow it."""

    name: str = ""
    teacher_flips: float = 0.0
    student: Following = field(default_factory=Following)
    control: Following | None = _optional()


@dataclass(kw_only=True)
class Sensitivity(JsonDataclass):
    """How student and control follow the teacher through minor changes of so many ``images``."""

    images: int = 0
    changes: list[ChangeReport] = field(default_factory=list)


@dataclass(kw_only=True)
class SplitReport(JsonDataclass):
    """One split: the images that could be read, and those that could not and were skipped."""

    name: str = ""
    images: int = 0
    skipped: int = 0


@dataclass(kw_only=True)
class SplitReports(JsonDataclass):
    """Both splits; what the metrics say is of the validation's images."""

    train: SplitReport | None = _optional()
    validation: SplitReport | None = _optional()


@dataclass(kw_only=True)
class SettingsChange(JsonDataclass):
    """Settings that a resume changed once ``epoch`` epochs were trained: for each its value before and after."""

    epoch: int = 0
    settings: dict[str, list[object]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Report(JsonDataclass):
    """The contents of report.json.

    ``method`` and ``loss_type`` are named as the options name them, ``terms`` are the weights of the loss terms that
    were on, ``weights`` says which of plain ("raw") and averaged ("ema")
    weights ``best/`` holds, ``complete`` is false while the training runs. ``seconds``, ``skipped_updates``,
    ``skipped_images`` and ``skipped_first`` (names of the first of them) are those of the whole training, resumes
    and both ``splits`` included, as are ``images_seen`` (an image counts each time that it was trained on) and
    ``views_seen``, their augmented views. ``changes`` are settings that resumes changed. The
    gain is that over ``control``; ``further_controls`` are shown beside it.
    """

    method: str = "none"
    loss_type: str = "kl"
    terms: dict[str, float] = field(default_factory=dict)
    views: int = 1
    images_seen: int = 0
    views_seen: int = 0
    epochs: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    weights: str | None = None
    license: str | None = None
    complete: bool = True
    skipped_updates: int = 0
    skipped_images: int = 0
    skipped_first: list[str] = field(default_factory=list)
    splits: SplitReports | None = _optional()
    changes: list[SettingsChange] = field(default_factory=list)
    student: NetworkReport = field(default_factory=NetworkReport)
    teacher: NetworkReport | None = _optional()
    control: NetworkReport | None = _optional()
    further_controls: list[NetworkReport] = field(default_factory=list)
    hardware: Hardware | None = _optional()
    redundancy: Redundancy | None = _optional()
    classes: Classes | None = _optional()
    sensitivity: Sensitivity | None = _optional()

    @property
    def controls(self) -> list[NetworkReport]:
        """All controls, that of the gain first."""
        return [*([self.control] if self.control else []), *self.further_controls]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The report of the finished run in ``folder``, or None when there is none."""
        path = folder / "report" / "report.json"
        return cls.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write it into the run's ``folder``."""
        (folder / "report").mkdir(exist_ok=True)
        write_text(folder / "report" / "report.json", json.dumps(self.to_json(), indent=2) + "\n")


def _to_json(value: object) -> object:
    if isinstance(value, JsonDataclass):
        return value.to_json()
    return [_to_json(part) for part in value] if isinstance(value, list) else value


def _from_json(kind: object, value: object) -> object:
    """``value`` as the type ``kind``: a dataclass, a list of them, either or None, or plain JSON."""
    if isinstance(kind, types.UnionType):  # X | None
        return None if value is None else _from_json(typing.get_args(kind)[0], value)
    if isinstance(value, list) and typing.get_origin(kind) is list:
        return [_from_json(typing.get_args(kind)[0], part) for part in value]
    if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, JsonDataclass):
        return kind.from_json(value)
    return value
