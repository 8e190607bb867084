"""A teacher is loaded: with its own head, without one where it is dropped, and frozen."""

import argparse
import difflib
import math
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timm.models import load_checkpoint, load_state_dict, split_model_name_tag
from torch import Tensor, nn

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.load import check_name, create
from dccd_timm.models.taps import single_head
from dccd_timm.models.weights import check_weights

_CHOOSE = "choose a teacher trained on this data set (hf-hub:, local-dir:, or a timm name with a checkpoint)"


def load_teacher(
    name: str,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    role: str = "teacher",
    advice: str = _CHOOSE,
    any_classes: bool = False,
) -> nn.Module:
    """A teacher with the head that its weights were trained with, in eval mode and without gradients.

    Args:
        name: timm name (timm's pretrained weights, or ``checkpoint``), ``hf-hub:owner/name`` or ``local-dir:path``.
        checkpoint: safetensors file or timm checkpoint for a plain timm name; never unpickled beyond weights.
        num_classes: what the head must have; None takes any.
        role: what errors call it.
        advice: what to do about a head of another size.
        any_classes: take a head of another size, or none, all the same.

    Raises:
        UserError: unknown name, unreadable or unfitting weights, or a head of another size. A head is never re-drawn.
    """
    if checkpoint:
        model = _from_checkpoint(name, checkpoint, num_classes, role)
    else:
        model = create(name, role, pretrained=True)
    if not any_classes:
        check_classes(model, num_classes, f"checkpoint {checkpoint}" if checkpoint else name, advice)
    return freeze(model)


def check_classes(teacher: nn.Module, num_classes: int | None, name: str = "", advice: str = _CHOOSE) -> None:
    """Refuse a teacher whose head has another number of classes than the student's; ``advice`` ends the message.

    Raises:
        UserError: names both numbers.
    """
    has = getattr(teacher, "num_classes", None)
    if num_classes is not None and has != num_classes:
        raise UserError(
            f"teacher {name or type(teacher).__name__} has {has} classes, the student {num_classes}: {advice}"
        )


def drop_head(model: nn.Module, name: str) -> nn.Module:
    """A teacher without its head, in place: it answers with its pooled features.

    Raises:
        UserError: when timm cannot take it off.
    """
    reset_classifier: Callable[[int], None] | None = getattr(model, "reset_classifier", None)
    try:
        if reset_classifier is None:
            raise ValueError("it has no reset_classifier")
        reset_classifier(0)
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        raise UserError(f"teacher {name}: its head cannot be dropped: {one_line(error)}") from error
    return model


def freeze(model: nn.Module) -> nn.Module:
    """Eval mode, no gradients, and the mean of its heads as answer."""
    single_head(model)
    return model.eval().requires_grad_(False)


def _from_checkpoint(name: str, checkpoint: str, num_classes: int | None, role: str) -> nn.Module:
    if not Path(checkpoint).is_file():
        near = difflib.get_close_matches(checkpoint, map(str, Path(checkpoint).parent.glob("*")), n=1)
        raise UserError(
            f"teacher checkpoint {checkpoint} does not exist" + (f"; near it lies {near[0]}" if near else "")
        )
    check_name(name, role)
    check_weights(Path(checkpoint), f"teacher checkpoint {checkpoint}")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain options, which older programs saved along
            state = load_state_dict(checkpoint, use_ema=True)
    except Exception as error:  # torch, safetensors and zip readers each raise their own kinds on a bad file
        raise UserError(f"teacher checkpoint {checkpoint} cannot be read: {one_line(error)}") from error
    in_chans, head_classes = _shape_of_checkpoint(name, state)
    cfg = timm.get_pretrained_cfg(name)
    if head_classes is None and cfg is not None and cfg.num_classes == 0:  # an architecture without a head
        num_classes = 0
    shape = dict(pretrained=False, num_classes=num_classes if head_classes is None else head_classes, in_chans=in_chans)
    model = create(name, role, **shape)
    if size := _size_of_checkpoint(model, state):
        model = create(name, role, img_size=size, **shape)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            load_checkpoint(model, checkpoint, use_ema=True, strict=True)
    except RuntimeError as error:
        raise UserError(f"teacher checkpoint {checkpoint} does not fit {name}: {one_line(error)}") from error
    return model


def _shape_of_checkpoint(name: str, state: dict[str, Tensor]) -> tuple[int, int | None]:
    """Image channels and classes of a state dict, read where timm says that stem and classifier are."""
    cfg = timm.get_pretrained_cfg(split_model_name_tag(name)[0])
    stem, head = (getattr(cfg, key, None) for key in ("first_conv", "classifier"))
    first = [s if isinstance(s, str) else s[0] if s else "" for s in (stem, head)]
    stem_weight, head_weight = (state.get(f"{key}.weight") for key in first)
    in_chans = stem_weight.shape[1] if stem_weight is not None and stem_weight.ndim == 4 else 3
    return in_chans, None if head_weight is None else head_weight.shape[0]


def _size_of_checkpoint(model: nn.Module, state: dict[str, Tensor]) -> int | None:
    """Side of the images that a state dict's position embedding is for; None where it is the model's, or unknown."""
    own, theirs, patches = (
        getattr(model, "pos_embed", None),
        state.get("pos_embed"),
        getattr(model, "patch_embed", None),
    )
    if own is None or theirs is None or theirs.ndim != 3 or own.ndim != 3 or theirs.shape == own.shape:
        return None
    grid, patch = getattr(patches, "grid_size", None), getattr(patches, "patch_size", None)
    if not grid or not patch:
        return None
    positions = theirs.shape[1] - (own.shape[1] - grid[0] * grid[1])  # without those of class and register tokens
    side = math.isqrt(max(positions, 0))
    return side * int(patch[0]) if side and side**2 == positions else None
