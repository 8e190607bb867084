"""What a run keeps: the student as a timm model, and the state that a resume needs; written whole or not at all."""

import contextlib
import copy
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from timm.models import save_for_hf
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import nn

from dccd_timm.recipe import Recipe, UserError

_logger = logging.getLogger(__name__)

_CHECKSUMS = "sha256.json"
_KEPT = 2
PACKAGES = ("dccd-timm", "timm", "torch", "torchvision", "accelerate", "datasets", "safetensors", "huggingface-hub")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``target`` when the block ends well; until then the old one stays."""
    fresh, old = (target.with_name(f".{target.name}.{word}") for word in ("new", "old"))
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    for path in (*fresh.rglob("*"), fresh):
        _sync(path)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    _sync(fresh)
    fresh.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def export(
    model: nn.Module, target: Path, data_config: dict[str, Any], label_names: list[str] | None, extra: dict[str, Any]
) -> None:
    """Write a student as timm's save_for_hf does: model.safetensors and config.json with this run's preprocessing.

    ``timm.create_model("local-dir:<target>", pretrained=True)`` gives it back. Tensors are made contiguous first:
    channels-last weights cannot be written. ``extra`` goes to the top of config.json, where timm ignores it.
    """
    model = unwrap_model(model)
    config = dict(extra)
    if label_names and len(label_names) == model.num_classes:
        config["label_names"] = label_names
    with replacing(target) as folder:
        plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        save_for_hf(plain, str(folder), model_config=config, data_config=data_config, safe_serialization=True)


def run_folder(recipe: Recipe, accelerator: Accelerator) -> Path:
    """The folder of this run: that of ``--resume``, or a new one below ``--output``; the same on every rank.

    A name that is taken gets a number; a run is never written over.

    Raises:
        UserError: when it cannot be written, or there is nothing to resume.
    """
    output = Path(recipe.output)
    named = output / recipe.experiment
    if recipe.resume == "auto":
        folder = named
    elif recipe.resume:
        folder = Path(recipe.resume)
        if not (folder / "state").is_dir():
            raise UserError(f"nothing to resume in {folder}: it has no state/")
    else:
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
    last = model.rstrip("/").rsplit(":", 1)[-1].rstrip("/").rsplit("/", 1)[-1]
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in last)


def lock(folder: Path) -> IO[str]:
    """Make a run's folder and keep other runs out of it until the returned file is closed.

    Raises:
        UserError: when the disk refuses, or another run writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock(): forked workers must not inherit it
    except OSError as error:
        raise UserError(f"another run writes to {folder}: wait for it, or give this one --experiment") from error
    return file


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


def newest_state(run: Path) -> Path | None:
    """The newest saved state that is whole, or None when nothing was saved; torn ones are named and passed over.

    Raises:
        UserError: when states were saved and none of them is whole.
    """
    states = sorted((run / "state").glob("update-*"), reverse=True)
    for state in states:
        reason = _torn(state)
        if reason is None:
            return state
        _logger.warning("the state %s is torn (%s): the one before it is used", state, reason)
    if states:
        raise UserError(f"nothing to resume in {run}: none of its {len(states)} saved states is whole; start anew")
    return None


def _torn(state: Path) -> str | None:
    try:
        sums = json.loads((state / _CHECKSUMS).read_text())
        wrong = [name for name, digest in sums.items() if _digest(state / name) != digest]
    except (OSError, ValueError) as error:
        return str(error)
    return f"{wrong[0]} is not what was written" if wrong else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def saved_progress(state: Path) -> dict[str, Any]:
    """How far the run had come when it saved ``state``."""
    return json.loads((state / "progress.json").read_text())


def saved_position(state: Path, rank: int) -> dict[str, Any] | None:
    """Where a rank's data stands in a saved state, or None when it had no such rank."""
    path = state / f"data_rank{rank}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def save_state(
    run: Path, task: TrainingTask, accelerator: Accelerator, progress: dict[str, Any], position: dict[str, Any]
) -> None:
    """Write what a resume needs: weights, optimizer, scaler and RNG by accelerate, EMA and progress by us.

    Every rank calls it, with its own ``meter`` in ``progress`` and the ``position`` of its data; the teacher is not in
    it. The newest two states are kept.
    """
    target = run / "state" / f"update-{progress['updates']:09d}"
    fresh = target.with_name(f".{target.name}.new")
    with contextlib.ExitStack() as stack:
        if accelerator.is_main_process:
            fresh = stack.enter_context(replacing(target))
        accelerator.wait_for_everyone()
        accelerator.save_state(str(fresh), safe_serialization=True)
        (fresh / f"data_rank{accelerator.process_index}.json").write_text(
            json.dumps(position | {"meter": progress["meter"]})
        )
        if accelerator.is_main_process:
            if task.has_ema():
                ema = task.get_trainable_module(ema=True)
                assert ema is not None
                tensors = {k: v.detach().cpu().contiguous().clone() for k, v in ema.state_dict().items()}
                safetensors.torch.save_file(tensors, fresh / "ema.safetensors")
            (fresh / "progress.json").write_text(json.dumps(progress, indent=2))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            sums = {p.name: _digest(p) for p in sorted(fresh.iterdir()) if p.is_file()}
            (fresh / _CHECKSUMS).write_text(json.dumps(sums, indent=2))
    if accelerator.is_main_process:
        for old in sorted((run / "state").glob("update-*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def load_state(state: Path, task: TrainingTask, accelerator: Accelerator, with_optimizer: bool) -> None:
    """Restore what :func:`save_state` wrote, the state of all random generators with it.

    Raises:
        UserError: when a part is missing, or it is another model's.
    """
    try:
        if with_optimizer:
            accelerator.load_state(str(state))
        else:
            weights = safetensors.torch.load_file(state / "model.safetensors")
            accelerator.unwrap_model(task.get_trainable_module()).load_state_dict(weights)
        if task.has_ema():
            ema = task.get_trainable_module(ema=True)
            assert ema is not None
            ema.load_state_dict(safetensors.torch.load_file(state / "ema.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"nothing to resume in {state}: {error.filename} is missing") from error
    except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"the state in {state} does not fit this run's settings: {text}") from error
