"""What a run keeps: the student as a timm model, and the state that a resume needs; written whole or not at all."""

import contextlib
import copy
import hashlib
import json
import logging
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from accelerate import Accelerator
from accelerate.utils import load as load_plain
from timm.data import ImageNetInfo
from timm.models import save_for_hf
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import nn

from dccd_timm.atomic import replacing
from dccd_timm.errors import UserError, one_line

_logger = logging.getLogger(__name__)

_CHECKSUMS = "sha256.json"


def export(
    model: nn.Module, target: Path, data_config: dict[str, Any], label_names: list[str] | None, extra: dict[str, Any]
) -> None:
    """Write a student as timm's save_for_hf does: model.safetensors and config.json with this run's preprocessing.

    ``timm.create_model("local-dir:<target>", pretrained=True)`` gives it back, which is tried before it replaces what
    lay there. Tensors are made contiguous first: channels-last weights cannot be written. ``extra`` goes to the top of
    config.json, where timm ignores it.

    Raises:
        UserError: when timm cannot build the same student again.
    """
    model = unwrap_model(model)
    config = dict(extra)
    if label_names and len(label_names) == model.num_classes:
        config["label_names"] = label_names
        if all(re.fullmatch(r"n\d{8}", name) for name in label_names):  # folders named by WordNet
            known = ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)
            config["label_descriptions"] = {name: known[name] for name in label_names if name in known}
    with replacing(target) as folder:
        plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
        save_for_hf(plain, str(folder), model_config=config, data_config=data_config, safe_serialization=True)
        _own_origin(folder / "config.json")
        _prove(plain, folder)


def _own_origin(path: Path) -> None:
    """Take out of config.json what is true of the architecture's default weights alone, and what breaks its readers."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for word in ("tag", "origin_url", "paper_ids", "paper_name", "notes", "license"):
        config["pretrained_cfg"].pop(word, None)
    # transformers would pass it on twice; timm reads the one above it
    config.get("model_args", {}).pop("num_classes", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def _prove(model: nn.Module, folder: Path) -> None:
    """Build the exported model with timm alone and compare its weights and its answer to a noise image."""
    with torch.random.fork_rng(devices=[]):  # a new model draws weights, which must not move the run's generator
        try:
            again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"timm cannot build the student again from its config.json: {one_line(error)}") from error
        image = torch.randn(1, *again.pretrained_cfg["input_size"])
    weights = again.state_dict()
    same = all(torch.equal(value, weights[name].to(value.dtype)) for name, value in model.state_dict().items())
    if not same or not torch.equal(model(image), again(image)):
        raise UserError("timm builds another student from config.json: an argument of its architecture is not kept")


def tidy(run: Path) -> None:
    """Clear away what a killed run left half written, and put back what it was about to replace."""
    for folder in (run, run / "state"):
        for old in folder.glob(".*.old"):
            target = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(target)
        for fresh in folder.glob(".*.new"):
            shutil.rmtree(fresh) if fresh.is_dir() else fresh.unlink()


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
    run: Path,
    task: TrainingTask,
    accelerator: Accelerator,
    progress: dict[str, Any],
    position: dict[str, Any],
    keep: int,
) -> None:
    """Write what a resume needs: weights, optimizer, scaler and RNG by accelerate, EMA and progress by us.

    Every rank calls it, with its own ``meter`` in ``progress`` and the ``position`` of its data; the teacher is not in
    it. The newest ``keep`` states are kept.
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
        for old in sorted((run / "state").glob("update-*"))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def load_state(state: Path, task: TrainingTask, accelerator: Accelerator, with_optimizer: bool) -> None:
    """Restore what :func:`save_state` wrote, the state of all random generators with it.

    Raises:
        UserError: when a part is missing, or it is another model's.
    """
    try:
        if with_optimizer:
            # accelerate goes on without the random generators when it cannot read them, and says so to nobody
            own = state / f"random_states_{accelerator.process_index}.pkl"
            if own.is_file():  # more ranks than saved it have none
                load_plain(own)
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
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the state in {state} holds more than weights and numbers, which is not loaded: it was not written by this"
            " program; start anew"
        ) from error
    except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"the state in {state} does not fit this run's settings: {one_line(error)}") from error
