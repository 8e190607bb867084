"""What a resume needs, and which states are kept; a state is written whole or not at all."""

import contextlib
import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import safetensors
from accelerate import Accelerator
from accelerate.utils import load as load_plain
from timm.task import TrainingTask
from torch import nn

from dccd_timm.atomic import replacing
from dccd_timm.batch import MeterState
from dccd_timm.data.loader import SavedPosition
from dccd_timm.errors import UserError, one_line
from dccd_timm.report.schema import JsonDataclass, SettingsChange
from dccd_timm.run.best import Best
from dccd_timm.run.tensors import (
    load_optimizer_extras,
    load_statistics,
    load_weights,
    save_optimizer_extras,
    save_statistics,
    save_weights,
    scaler_left_out,
    weights_left_out,
)

_logger = logging.getLogger(__name__)

_CHECKSUMS = "sha256.json"
_PROGRESS = "progress.json"
_WEIGHTS = "model.safetensors"
_AVERAGE = "ema.safetensors"
_EXTRAS = "optimizer_extras.safetensors"


@dataclass(kw_only=True)
class SavedProgress(JsonDataclass):
    """How far a training had come: progress.json of a state.

    ``batches`` of ``epoch`` are done, or all of them and what follows an epoch when ``complete``; ``updates`` counts
    those of all epochs at this run's updates per epoch. ``number`` counts the states that were written: the newest has
    the highest. ``world`` is the number of processes, ``meter`` the losses of the epoch on rank 0. ``seconds``,
    ``images``, ``views``, ``skipped_updates`` and ``skipped_images`` are those of the whole training, ``skipped_first``
    names the first images. ``class_names`` are in index order, empty where the data has none. ``settings`` are those
    that it was trained with, ``changes`` what resumes changed in them. States of older versions have none of these.
    """

    epoch: int
    complete: bool
    updates: int
    batches: int
    world: int
    number: int = 0
    meter: MeterState = field(default_factory=lambda: MeterState())
    best: Best | None = None
    scheduler: dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    views: int = 0
    skipped_updates: int = 0
    skipped_images: int = 0
    skipped_first: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    changes: list[SettingsChange] = field(default_factory=list)

    @classmethod
    def read(cls, state: Path) -> "SavedProgress":
        """That of the state in a folder."""
        return cls.from_json(json.loads((state / _PROGRESS).read_text(encoding="utf-8")))

    def write(self, state: Path) -> None:
        """Write it into the folder of a state."""
        (state / _PROGRESS).write_text(json.dumps(self.to_json(), indent=2), encoding="utf-8")


@dataclass(kw_only=True)
class SavedRank(JsonDataclass):
    """What one rank saves by itself: the position of its data, its losses of the epoch, images that it skipped.

    ``skipped`` counts images by the name that the log gives them.
    """

    position: SavedPosition
    meter: MeterState
    skipped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, state: Path, rank: int) -> "SavedRank | None":
        """That of a rank, or None when the state was saved by fewer ranks."""
        path = state / f"data_rank{rank}.json"
        if not path.is_file():
            return None
        position = json.loads(path.read_text(encoding="utf-8"))
        return cls(meter=position.pop("meter"), skipped=position.pop("skipped", {}), position=position)

    def write(self, state: Path, rank: int) -> None:
        """Write it as one object into a state's folder."""
        saved = self.position | {"meter": self.meter, "skipped": self.skipped}
        (state / f"data_rank{rank}.json").write_text(json.dumps(saved), encoding="utf-8")


def skipped_images(state: Path, rank: int, world: int) -> dict[str, int]:
    """Images that were skipped before ``state`` was saved; each of now ``world`` ranks takes over its part of them."""
    skipped: dict[str, int] = {}
    for number in range(rank, len(list(state.glob("data_rank*.json"))), world):
        saved = SavedRank.read(state, number)
        skipped |= saved.skipped if saved else {}
    return skipped


def newest_state(run: Path) -> Path | None:
    """The saved state that was written last and is whole, or None when none was saved; damaged ones are skipped with a
    warning.

    Raises:
        UserError: when states were saved and none of them is whole.
    """
    states = _by_age(run)[::-1]
    for state in states:
        reason = _damage(state)
        if reason is None:
            return state
        _logger.warning("the state %s is damaged (%s): the one before it is used", state, reason)
    if states:
        raise UserError(f"nothing to resume in {run}: none of its {len(states)} saved states is whole; start a new run")
    return None


def _by_age(run: Path) -> list[Path]:
    """The saved states of a run in the order in which they were written.

    Update numbers do not give it: they fall when a resumed run has fewer updates per epoch. States of older versions
    are not numbered, and those that cannot be read come first.
    """

    def age(state: Path) -> tuple[int, int, bool, str]:
        saved = _read(state)
        return (saved.number, saved.epoch, saved.complete, state.name) if saved else (-1, 0, False, state.name)

    return sorted((run / "state").glob("update-*"), key=age)


def _read(state: Path) -> SavedProgress | None:
    """What a state says, None when it cannot be read."""
    try:
        return SavedProgress.read(state)
    except (OSError, ValueError, TypeError):
        return None


def _damage(state: Path) -> str | None:
    """What is wrong with a state, None when it is whole."""
    try:
        sums = json.loads((state / _CHECKSUMS).read_text())
        wrong = [name for name, digest in sums.items() if _digest(state / name) != digest]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{wrong[0]} is not what was written" if wrong else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_state(
    run: Path, task: TrainingTask, accelerator: Accelerator, progress: SavedProgress, rank: SavedRank, num_kept: int
) -> None:
    """Write what a resume needs: weights, optimizer, scaler and RNG by accelerate, EMA and progress by us.

    Every rank calls it, with its own ``rank``; the teacher is not in it. The newest ``num_kept`` states are kept.
    """
    target = run / "state" / f"update-{progress.updates:09d}"
    if accelerator.is_main_process:
        earlier = [saved.number for state in _by_age(run) if (saved := _read(state))]
        progress = replace(progress, number=max(earlier, default=0) + 1)
    with _writing(target, accelerator) as folder:
        with weights_left_out(accelerator):
            accelerator.save_state(str(folder), safe_serialization=True)
        rank.write(folder, accelerator.process_index)
        save_statistics(task, accelerator, folder)
        if accelerator.is_main_process:
            save_weights(_trainable(task), folder / _WEIGHTS)
            if (ema := _ema_module(task)) is not None:
                save_weights(ema, folder / _AVERAGE)
            for optimizer in accelerator._optimizers:
                save_optimizer_extras(optimizer, folder / _EXTRAS)
            progress.write(folder)
    if accelerator.is_main_process:
        keep(run, num_kept)
    accelerator.wait_for_everyone()


@contextlib.contextmanager
def _writing(target: Path, accelerator: Accelerator) -> Iterator[Path]:
    """A folder that all ranks write to and that becomes the state ``target``, with checksums, once all are done."""
    folder = target.with_name(f".{target.name}.new")
    with contextlib.ExitStack() as stack:
        if accelerator.is_main_process:
            folder = stack.enter_context(replacing(target))
        accelerator.wait_for_everyone()
        yield folder
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _write_checksums(folder)


def _write_checksums(folder: Path) -> None:
    sums = {p.name: _digest(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != _CHECKSUMS}
    (folder / _CHECKSUMS).write_text(json.dumps(sums, indent=2))


def record_best(run: Path, best: Best) -> None:
    """Write into the newest state of a run which student ``best/`` holds, chosen after that state was saved."""
    state = newest_state(run)
    if state is None:
        return
    progress = SavedProgress.read(state)
    progress.best = best
    with replacing(state) as folder:
        shutil.copytree(state, folder, dirs_exist_ok=True)
        progress.write(folder)
        _write_checksums(folder)


def keep(run: Path, num_kept: int) -> None:
    """Delete all states of a run but the ``num_kept`` that were written last."""
    for old in _by_age(run)[:-num_kept]:
        shutil.rmtree(old, ignore_errors=True)


def load_state(
    state: Path, task: TrainingTask, accelerator: Accelerator, with_optimizer: bool, changed: str = ""
) -> None:
    """Restore what :func:`save_state` wrote, the random number generators included; ``changed`` says what settings
    are not those that it was saved with.

    Raises:
        UserError: when a part is missing, or it is another model's.
    """
    try:
        load_weights(_trainable(task), state / _WEIGHTS)
        if with_optimizer:
            # accelerate continues silently without the random generators when it cannot read them
            own = state / f"random_states_{accelerator.process_index}.pkl"
            if own.is_file():  # more ranks than saved it have none
                load_plain(own)
            with weights_left_out(accelerator), scaler_left_out(accelerator, unless=_saved(state, "scaler.pt")):
                accelerator.load_state(str(state))
            for optimizer in accelerator._optimizers:
                load_optimizer_extras(optimizer, state / _EXTRAS)
        if (ema := _ema_module(task)) is not None:
            # an average that was not kept before begins at the student's weights
            load_weights(ema, state / (_AVERAGE if _saved(state, _AVERAGE) else _WEIGHTS))
        if SavedProgress.read(state).world == accelerator.num_processes:  # else all keep those of rank 0
            load_statistics(task, accelerator, state)
    except FileNotFoundError as error:
        missing = (
            f"{error.filename} is missing" if error.filename else one_line(error)
        )  # safetensors gives no file name
        raise UserError(f"nothing to resume in {state}: {missing}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the state in {state} holds more than weights and numbers, which is not loaded: it was not written by this"
            " program; start a new run"
        ) from error
    except (RuntimeError, ValueError, KeyError, safetensors.SafetensorError) as error:
        advice = f"; changed are {changed}: keep the old values or start a new run" if changed else ""
        raise UserError(f"the state in {state} does not fit this run's settings: {one_line(error)}{advice}") from error


def _saved(state: Path, name: str) -> bool:
    """Whether a file belongs to a state, be it still there or not."""
    return (state / name).is_file() or name in json.loads((state / _CHECKSUMS).read_text())


def _trainable(task: TrainingTask) -> nn.Module:
    module = task.get_trainable_module()
    assert module is not None
    return module


def _ema_module(task: TrainingTask) -> nn.Module | None:
    return task.get_trainable_module(ema=True) if task.has_ema() else None
