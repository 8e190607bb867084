"""What can befall a run that is no bug, each in one line with its mend: memory, disk."""

import errno
from pathlib import Path

import safetensors
import torch

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Recipe

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# torch and safetensors report a full disk in their own words
_DISK_WORDS = ("PytorchStreamWriter", "inline_container", "No space left", "file write failed", "I/O error")


def explain(error: BaseException, recipe: Recipe, folder: Path) -> str | None:
    """One line for an error of the user's or the machine's, None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return _out_of_memory(error, recipe)
    if "DataLoader timed out" in str(error):
        return (
            f"a loader worker gave no batch for more than {recipe.data_timeout:g} s (--data-timeout): look at the disk"
            f" or network behind {recipe.dataset or recipe.data_dir}; then go on with --resume {folder}"
        )
    disk = isinstance(error, OSError) and error.errno in _DISK
    written = isinstance(error, RuntimeError | safetensors.SafetensorError)
    if disk or (written and any(word in str(error) for word in _DISK_WORDS)):
        reason = error.strerror if isinstance(error, OSError) else "the disk is full or refuses"
        resumable = f"; then go on with --resume {folder}" if (folder / "state").is_dir() else ""
        return f"{folder} cannot be written ({reason}): free some space or set --output{resumable}"
    return None


def _out_of_memory(error: BaseException, recipe: Recipe) -> str:
    views = recipe.dccd_views
    mends = [f"--batch-size (with --grad-accum-steps {2 * recipe.grad_accum_steps} half of it makes the same update)"]
    if views > 1:
        mends.append("--dccd-views")
    if not recipe.amp:
        mends.append("or use --amp --amp-dtype bfloat16")
    if not recipe.grad_checkpointing:
        mends.append("or use --grad-checkpointing")
    where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "the CPU"
    batch = f"{recipe.batch_size} images x {views} view{'s' if views > 1 else ''} per rank"
    return f"out of memory on {where} with {batch}: lower {', '.join(mends)} ({one_line(error, 120)})"
