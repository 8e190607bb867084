"""A run's folder: which one it is, who may write to it, and the settings that the run was started with."""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, cast

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.optim import Optimizer

from dccd_timm.atomic import write_text
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.report.schema import SettingsChange
from dccd_timm.run.settings import plain_settings, read_settings

_LOCK = ".lock"
PACKAGES = (
    "dccd-timm", "timm", "torch", "torchvision", "accelerate", "datasets", "safetensors", "huggingface-hub", "pillow",
    "simplejpeg",
)  # fmt: skip


def choose_folder(recipe: Recipe, accelerator: Accelerator) -> Path:
    """The folder of this run: that of ``--resume``, or a new one below ``--output``; the same on every rank.

    When the launcher has restarted its processes, it is the folder that they wrote to before.

    Raises:
        UserError: when it cannot be written, or there is nothing to resume.
    """
    folder = _resumed_folder(recipe) or _new_folder(recipe)
    folder = Path(broadcast_object_list([str(folder)])[0])
    existing = existing_parent(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"output folder {folder} cannot be written ({existing} is no writable folder): set --output")
    if any("\ud800" <= character <= "\udfff" for character in str(folder.absolute())):
        raise UserError(f"output folder {str(folder)!a} has bytes that are no UTF-8, which safetensors cannot write to")
    accelerator.wait_for_everyone()
    return folder


def _resumed_folder(recipe: Recipe) -> Path | None:
    """The folder of a run that continues, None for a new run."""
    if recipe.resume == "auto":
        return Path(recipe.output) / recipe.experiment
    if recipe.resume:
        folder = Path(recipe.resume)
        if not saved_states(folder):
            raise UserError(f"nothing to resume in {folder}: it has no state/")
        return folder
    return _folder_of_last_attempt(Path(recipe.output)) if restarted() else None


def _new_folder(recipe: Recipe) -> Path:
    """A folder that does not exist yet: a name that is taken gets a number, so that no run is overwritten."""
    teacher = f"-{_file_name(recipe.kd_model_name)}" if recipe.kd_model_name else ""
    name = recipe.experiment or f"{time.strftime('%Y%m%d-%H%M%S')}-{_file_name(recipe.model)}{teacher}"
    folder = named = Path(recipe.output) / name
    number = 1
    while folder.exists():
        folder, number = named.with_name(f"{named.name}-{number}"), number + 1
    return folder


def _file_name(model: str) -> str:
    """A model's short name with characters that every file system takes."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in ModelName.parse(model).short)


class FolderLock:
    """Keeps other runs out of a run's folder. Only the main process takes it.

    A run that ends with an error leaves the lock file, which then locks nothing but tells a restarted launcher which
    folder it wrote to.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.folder, self.enabled = folder, accelerator.is_main_process
        self.file: IO[str] | None = None

    def acquire(self) -> None:
        """Make the folder and lock it, unless that is done.

        Raises:
            UserError: when the disk refuses, or another run writes there.
        """
        if self.enabled and self.file is None:
            self.file = _lock(self.folder)

    def acquire_existing(self) -> None:
        """Lock the folder if it exists."""
        if self.folder.exists():
            self.acquire()

    def release(self) -> None:
        """Unlock the folder at the end of a run."""
        if self.file is not None:
            Path(self.file.name).unlink(missing_ok=True)
            self.file.close()


class UntrainedFolder:
    """The folder of a new run until its first update: a run that ends before it leaves none."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.parents: list[Path] = []

    def watch(self, run: Path, existing: Path, optimizer: Optimizer) -> None:
        """Note that this process has made and locked ``run`` below the folder that was ``existing``, unless it is an
        earlier run's; the first step of ``optimizer`` keeps it."""
        files = [path for path in run.rglob("*") if not path.is_dir() and path.name != _LOCK]
        if files:
            return
        self.folder = run
        self.parents = [parent for parent in run.absolute().parents if existing.absolute() in parent.parents]

        def keep(*step: object) -> None:
            self.folder = None
            hook.remove()

        hook = optimizer.register_step_post_hook(keep)

    def remove(self) -> None:
        """Remove the folder, and those above it that were made for it."""
        if self.folder is None or saved_states(self.folder):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in self.parents:
            with contextlib.suppress(OSError):  # another run lies in it
                parent.rmdir()


def control_folder(run: Path, recipe: Recipe, method: str) -> Path:
    """The folder of the control by this ``method`` in that of its run: control/ for the first, of which the gain is
    measured, control-METHOD/ for others."""
    return run / ("control" if method == recipe.dccd_control[0] else f"control-{method}")


def kept_folders(folder: Path) -> list[Path]:
    """Where a run may keep what it has in common with its controls: in the ``folder`` of the run or control that asks,
    or in that of the first control."""
    first = folder.parent if (folder.parent / "args.yaml").is_file() else folder  # a control lies in its run's folder
    return [folder, first / "control"]


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def saved_states(run: Path) -> bool:
    """Whether a run, or a control of it, has saved where it is."""
    return any((folder / "state").is_dir() for folder in (run, *run.glob("control*")))


def _lock(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a+")
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock(): a child process must not inherit it
    except OSError as error:
        raise UserError(f"another run writes to {folder}: wait for it, or give this one --experiment") from error
    file.truncate(0)
    file.write(_launcher())
    file.flush()
    return file


def restarted() -> bool:
    """Whether the launcher has restarted these processes after a failure."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _launcher() -> str:
    """What all attempts of one launcher have in common."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')} {socket.gethostname()} {os.getppid()}"


def _folder_of_last_attempt(output: Path) -> Path | None:
    """The folder that an earlier attempt of this launcher wrote to."""
    for lock_file in (*output.glob(f"*/{_LOCK}"), *output.glob(f"*/control*/{_LOCK}")):
        if lock_file.read_text() == _launcher():
            return lock_file.parent if lock_file.parent.parent == output else lock_file.parent.parent
    return None


def clean_up(folder: Path) -> None:
    """Delete what a killed run left half written, and restore what it was about to replace."""
    for parent in (folder, folder / "state"):
        for old in parent.glob(".*.old"):
            target = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(target)
        for fresh in parent.glob(".*.new"):
            shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink()


def write_settings(folder: Path, recipe: Recipe, changes: Sequence[SettingsChange] = (), resumed: bool = False) -> None:
    """Write args.yaml: every resolved setting, the versions of the packages, and the ``changes`` of earlier settings.

    What is about one start of the program is left out of it, but the first epoch of a run that was not ``resumed``.

    Raises:
        UserError: when the disk refuses.
    """
    start_epoch = None if resumed else recipe.start_epoch
    settings = plain_settings(dataclasses.replace(recipe, resume=None, no_resume_opt=False, start_epoch=start_epoch))
    settings["versions"] = {name: _version(name) for name in PACKAGES}
    if changes:
        settings["changed"] = [{"epoch": change.epoch, **change.settings} for change in changes]
    try:
        write_text(folder / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error


def written_changes(folder: Path) -> list[SettingsChange]:
    """Changes of settings in the args.yaml of a run's ``folder``."""
    changes = cast(list[dict[str, list[object]]], read_settings(folder).get("changed", []))
    return [SettingsChange(epoch=cast(int, change.pop("epoch")), settings=change) for change in changes]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
