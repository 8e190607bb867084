"""Failures of a run that are no bugs, memory and disk, each in one line with its fix."""

import errno
import re
import shlex
from pathlib import Path

import safetensors
import torch

from dccd_timm.errors import START_AGAIN, UserError, one_line
from dccd_timm.recipe import Recipe, Validation

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# How torch and safetensors report a full disk
_DISK_MESSAGES = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "I/O error")


def explain(error: BaseException, settings: Recipe | Validation, folder: Path) -> str | None:
    """One line for an error of the user's or the machine's, None for a bug."""
    saved = isinstance(settings, Recipe) and any((run / "state").is_dir() for run in (folder, *folder.glob("control*")))
    resume = f"resume with --resume {shlex.quote(str(folder))}" if saved else START_AGAIN
    if isinstance(error, UserError):
        return re.sub(f"{START_AGAIN}$", lambda _: resume, str(error))
    if is_out_of_memory(error):
        return out_of_memory(error, settings)
    if "DataLoader timed out" in str(error):
        return (
            f"a loader worker gave no batch for more than {settings.data_timeout:g} s (--data-timeout): look at the"
            f" disk or network of {settings.dataset or settings.data_dir}; then {resume}"
        )
    disk = isinstance(error, OSError) and error.errno in _DISK
    written = isinstance(error, RuntimeError | safetensors.SafetensorError)
    if disk or (written and any(text in str(error) for text in _DISK_MESSAGES)):
        reason = error.strerror if isinstance(error, OSError) else "the disk is full or refuses"
        return f"{folder} cannot be written ({reason}): free some space or set --output; then {resume}"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the CPU had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def out_of_memory(error: BaseException, settings: Recipe | Validation, smaller: str | None = None) -> str:
    """One line for it; ``smaller`` says of a smaller batch what it takes and changes, where that is known."""
    batch, advice = f"{settings.batch_size} images", ["lower --batch-size"]
    if isinstance(settings, Recipe):
        views, steps = settings.dccd_views, 2 * settings.grad_accum_steps
        batch += f" x {views} view{'s' if views > 1 else ''}"
        advice = [smaller or f"lower --batch-size (with --grad-accum-steps {steps} half of it makes the same update)"]
        if views > 1:
            advice.append("or lower --dccd-views")
    if not settings.amp:
        advice.append("or use --amp --amp-dtype bfloat16")
    if isinstance(settings, Recipe) and not settings.grad_checkpointing:
        advice.append("or use --grad-checkpointing")
    where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "the CPU"
    return f"out of memory on {where} with {batch} per rank: {', '.join(advice)} ({one_line(error, 120)})"
