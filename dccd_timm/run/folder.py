"""A run's folder: which one it is, who may write to it, and what the run was told."""

import dataclasses
import fcntl
import os
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dccd_timm.atomic import write_text
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.model_name import ModelName

_LOCK = ".lock"
PACKAGES = ("dccd-timm", "timm", "torch", "torchvision", "accelerate", "datasets", "safetensors", "huggingface-hub")


def run_folder(recipe: Recipe, accelerator: Accelerator) -> Path:
    """The folder of this run: that of ``--resume``, or a new one below ``--output``; the same on every rank.

    A name that is taken gets a number; a run is never written over. A new attempt of the launcher's takes up the folder
    of the one before.

    Raises:
        UserError: when it cannot be written, or there is nothing to resume.
    """
    output = Path(recipe.output)
    named = output / recipe.experiment
    folder: Path | None
    if recipe.resume == "auto":
        folder = named
    elif recipe.resume:
        folder = Path(recipe.resume)
        if not any((part / "state").is_dir() for part in (folder, folder / "control")):
            raise UserError(f"nothing to resume in {folder}: it has no state/")
    else:
        folder = _of_last_attempt(output)
    if folder is None:
        teacher = f"-{_safe(recipe.kd_model_name)}" if recipe.kd_model_name else ""
        named = output / (recipe.experiment or f"{time.strftime('%Y%m%d-%H%M%S')}-{_safe(recipe.model)}{teacher}")
        folder, number = named, 1
        while folder.exists():
            folder, number = named.with_name(f"{named.name}-{number}"), number + 1
    names = broadcast_object_list([str(folder)])
    folder = Path(names[0])
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"output folder {folder} cannot be written ({place} is no writable folder): set --output")
    accelerator.wait_for_everyone()
    return folder


def _safe(model: str) -> str:
    """A model's short name with characters that every file system takes."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in ModelName.parse(model).short)


def lock(folder: Path) -> IO[str]:
    """Make a run's folder and keep other runs out of it until the returned file is closed.

    Raises:
        UserError: when the disk refuses, or another run writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a+")
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock(): forked workers must not inherit it
    except OSError as error:
        raise UserError(f"another run writes to {folder}: wait for it, or give this one --experiment") from error
    file.truncate(0)
    file.write(_launcher())
    file.flush()
    return file


def unlock(file: IO[str]) -> None:
    """Give the folder back at the end of a run; one that is killed leaves the file, which then locks nothing."""
    Path(file.name).unlink(missing_ok=True)
    file.close()


def restarted() -> bool:
    """Whether the launcher has started these processes anew, after others had ended badly."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _launcher() -> str:
    """What all attempts of one launcher have in common."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')} {socket.gethostname()} {os.getppid()}"


def _of_last_attempt(output: Path) -> Path | None:
    """The folder that an earlier attempt of this launcher wrote to."""
    if not restarted():
        return None
    for lock_file in (*output.glob(f"*/{_LOCK}"), *output.glob(f"*/control/{_LOCK}")):
        if lock_file.read_text() == _launcher():
            return lock_file.parent.parent if lock_file.parent.name == "control" else lock_file.parent
    return None


def begin(folder: Path, recipe: Recipe) -> None:
    """Write args.yaml: every resolved setting, and the versions that it ran with.

    Raises:
        UserError: when the disk refuses.
    """
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    settings |= {"resume": None, "versions": {name: _version(name) for name in PACKAGES}}
    try:
        write_text(folder / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
