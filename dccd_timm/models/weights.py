"""Files of weights that are none, or damaged: found before a reader fails on them without the cause."""

import hashlib
import pickle
import tarfile
import zipfile
from pathlib import Path

import safetensors
import torch
from torch import nn

from dccd_timm.errors import UserError, one_line

# What the readers of safetensors and PyTorch files raise
DAMAGED = (safetensors.SafetensorError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile)
_POINTER = b"version https://git-lfs.github.com/spec/"


def check_weights(path: Path, what: str) -> None:
    """Refuse a pointer of Git LFS, and a safetensors file that is cut short or damaged; ``what`` names the file.

    Raises:
        UserError: with what helps.
    """
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise UserError(f"{what} is a pointer of Git LFS and has no weights: run `git lfs pull`, or download it again")
    if not start:
        raise UserError(f"{what} is empty: copy or download it again")
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):  # torch.save's own format
        raise UserError(f"{what} is cut short: copy or download it again")
    if path.suffix != ".safetensors" and not start.startswith((b"PK", b"\x80")) and not tarfile.is_tarfile(path):
        raise UserError(f"{what} is no file of weights: give one of safetensors (.safetensors) or of torch.save")
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt"):  # reads the header and compares the size
                pass
        except safetensors.SafetensorError as error:
            raise UserError(
                f"{what} is cut short or damaged: copy or download it again ({one_line(error, 120)})"
            ) from error


def hash_weights(model: nn.Module) -> str:
    """A SHA-256 of a model's parameters and buffers, by their names."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
