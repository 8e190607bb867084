"""What a run keeps: the student as a timm model, and the state that a resume needs; written whole or not at all."""

import contextlib
import copy
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def begin(folder: Path, recipe: Recipe) -> None:
    """Make the folder and write args.yaml: every resolved setting, and the versions that it ran with.

    Raises:
        UserError: when the disk refuses.
    """
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    settings |= {"resume": None, "versions": {name: _version(name) for name in PACKAGES}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "args.yaml", yaml.safe_dump(settings, sort_keys=False))
    except OSError as error:
        raise UserError(f"output folder {folder} cannot be written: {error.strerror}; set --output") from error


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def saved_progress(folder: Path) -> dict[str, Any] | None:
    """How far the run in ``folder`` came, or None when it has no state."""
    path = folder / "state" / "progress.json"
    return json.loads(path.read_text()) if path.is_file() else None


def saved_position(folder: Path, rank: int) -> dict[str, Any] | None:
    """Where a rank's data stands in the saved state, or None when it does not say."""
    path = folder / "state" / f"data_rank{rank}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def save_state(
    run: Path, task: TrainingTask, accelerator: Accelerator, progress: dict[str, Any], position: dict[str, Any]
) -> None:
    """Write what a resume needs: weights, optimizer, scaler and RNG by accelerate, EMA and progress by us.

    Every rank calls it, with the ``position`` of its data; the teacher is not in it.
    """
    folder = run / "state"
    with contextlib.ExitStack() as stack:
        fresh = folder.with_name(f".{folder.name}.new")
        if accelerator.is_main_process:
            fresh = stack.enter_context(replacing(folder))
        accelerator.wait_for_everyone()
        accelerator.save_state(str(fresh), safe_serialization=True)
        (fresh / f"data_rank{accelerator.process_index}.json").write_text(json.dumps(position))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if task.has_ema():
                ema = task.get_trainable_module(ema=True)
                assert ema is not None
                tensors = {k: v.detach().cpu().contiguous().clone() for k, v in ema.state_dict().items()}
                safetensors.torch.save_file(tensors, fresh / "ema.safetensors")
            (fresh / "progress.json").write_text(json.dumps(progress, indent=2))
        accelerator.wait_for_everyone()


def load_state(run: Path, task: TrainingTask, accelerator: Accelerator, with_optimizer: bool) -> None:
    """Restore what :func:`save_state` wrote.

    Raises:
        UserError: when a part is missing, or it is another model's.
    """
    folder = run / "state"
    try:
        if with_optimizer:
            accelerator.load_state(str(folder))
        else:
            weights = safetensors.torch.load_file(folder / "model.safetensors")
            accelerator.unwrap_model(task.get_trainable_module()).load_state_dict(weights)
        if task.has_ema():
            ema = task.get_trainable_module(ema=True)
            assert ema is not None
            ema.load_state_dict(safetensors.torch.load_file(folder / "ema.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"nothing to resume in {folder}: {error.filename} is missing") from error
    except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
        text = " ".join(str(error).split())[:300]
        raise UserError(f"the state in {folder} does not fit this run's settings: {text}") from error
