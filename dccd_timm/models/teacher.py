"""The frozen teacher: loaded with its own head, put to sleep at birth, fed as it was trained."""

import argparse
import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.data import resolve_input_data_config
from timm.models import get_model_input_config, load_checkpoint, load_state_dict, split_model_name_tag
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.load import check_name, create
from dccd_timm.models.taps import single_head, tapped_forward

# ITU-R BT.601 luma, what PIL's convert("L") uses
_LUMA = (0.299, 0.587, 0.114)


def load_teacher(name: str, checkpoint: str | None = None, num_classes: int | None = None) -> nn.Module:
    """A teacher with the head that its weights were trained with, in eval mode and without gradients.

    Args:
        name: timm name (timm's pretrained weights, or ``checkpoint``), ``hf-hub:owner/name`` or ``local-dir:path``.
        checkpoint: safetensors file or timm checkpoint for a plain timm name; never unpickled beyond weights.
        num_classes: what the head must have; None takes any.

    Raises:
        UserError: unknown name, unreadable or unfitting weights, or a head of another size. A head is never re-drawn.
    """
    role = "teacher (--kd-model-name)"
    if checkpoint:
        model = _from_checkpoint(name, checkpoint, num_classes, role)
    else:
        model = create(name, role, pretrained=True)
    check_classes(model, num_classes, name)
    return freeze(model)


def check_classes(teacher: nn.Module, num_classes: int | None, name: str = "") -> None:
    """Refuse a teacher whose head has another number of classes than the student's.

    Raises:
        UserError: names both numbers.
    """
    has = getattr(teacher, "num_classes", None)
    if num_classes is not None and has != num_classes:
        raise UserError(
            f"teacher {name or type(teacher).__name__} has {has} classes, the student {num_classes}: choose a teacher"
            " trained on this data set (hf-hub:, local-dir:, or --kd-teacher-checkpoint with a timm name)"
        )


def freeze(model: nn.Module) -> nn.Module:
    """Put a model to sleep: eval mode, no gradients, the mean of its heads as answer."""
    single_head(model)
    return model.eval().requires_grad_(False)


def _from_checkpoint(name: str, checkpoint: str, num_classes: int | None, role: str) -> nn.Module:
    if not Path(checkpoint).is_file():
        near = difflib.get_close_matches(checkpoint, map(str, Path(checkpoint).parent.glob("*")), n=1)
        raise UserError(
            f"teacher checkpoint {checkpoint} does not exist" + (f"; near it lies {near[0]}" if near else "")
        )
    check_name(name, role)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain options, which older programs saved along
            state = load_state_dict(checkpoint, use_ema=True)
    except Exception as error:  # torch, safetensors and zip readers each raise their own kinds on a bad file
        raise UserError(f"teacher checkpoint {checkpoint} cannot be read: {one_line(error)}") from error
    in_chans, head_classes = _shape_of_checkpoint(name, state)
    if num_classes and head_classes and head_classes != num_classes:
        raise UserError(
            f"teacher checkpoint {checkpoint} has {head_classes} classes, the student {num_classes}: choose weights"
            " trained on this data set"
        )
    model = create(name, role, pretrained=False, num_classes=head_classes or num_classes, in_chans=in_chans)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            load_checkpoint(model, checkpoint, use_ema=True, strict=True)
    except RuntimeError as error:
        raise UserError(f"teacher checkpoint {checkpoint} does not fit {name}: {one_line(error)}") from error
    return model


def _shape_of_checkpoint(name: str, state: dict[str, Any]) -> tuple[int, int | None]:
    """Image channels and classes that a state dict was trained with, read where timm says stem and classifier are."""
    cfg = timm.get_pretrained_cfg(split_model_name_tag(name)[0])
    stem, head = (getattr(cfg, key, None) for key in ("first_conv", "classifier"))
    first = [s if isinstance(s, str) else s[0] if s else "" for s in (stem, head)]
    stem_weight, head_weight = (state.get(f"{key}.weight") for key in first)
    in_chans = stem_weight.shape[1] if stem_weight is not None and stem_weight.ndim == 4 else 3
    return in_chans, None if head_weight is None else head_weight.shape[0]


class FrozenTeacher(nn.Module):
    """A sleeping teacher that takes the student's images: other normalisation, channels and size are undone here.

    Args:
        model: any timm classifier.
        mean: the student's normalisation, one value or one per channel, in [0, 1] pixel units.
        std: likewise.
        input_size: the student's images [C, H, W].
        dtype: precision that the model is brought to and computes in, under any autocast; None leaves both alone.

    Raises:
        ValueError: for channels that cannot be converted.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, ...],
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model, self.dtype = freeze(model).to(dtype), dtype
        own = get_model_input_config(model)
        own_size = tuple(own["input_size"])
        cfg = resolve_input_data_config(model)
        self.in_chans = own_size[0]
        # Only a model that cannot take other sizes gets its own; all others see what the student sees.
        self.resize = own_size[1:] if own["fixed_input_size"] and own_size[1:] != tuple(input_size[1:]) else None
        student_chans = input_size[0]
        if self.in_chans != student_chans and (student_chans, self.in_chans) not in ((1, 3), (3, 1)):
            raise ValueError(
                f"images of {student_chans} channels cannot be shown to a teacher of {self.in_chans}: set in_chans to"
                f" {self.in_chans}"
            )
        self.to_grey = student_chans == 3 and self.in_chans == 1
        # x_teacher = (x * std_s + mean_s - mean_t) / std_t, folded into one multiplication and one addition, and left
        # out where both networks agree: decided here, since a comparison in each step would wait for the device.
        mean_s, std_s, mean_t, std_t = (_per_channel(v) for v in (mean, std, cfg["mean"], cfg["std"]))
        if self.to_grey:
            luma = torch.tensor(_LUMA).view(1, 3, 1, 1)
            self.register_buffer("luma", luma * std_s / std_t, persistent=False)
            scale, shift = torch.ones(1), ((luma * mean_s).sum() - mean_t) / std_t
        else:
            scale, shift = std_s / std_t, (mean_s - mean_t) / std_t
        self.same_normalisation = bool((scale == 1).all() and (shift == 0).all())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def own_input_size(self) -> tuple[int, ...] | None:
        """Height and width that the images are resized to, or None when they stay as they are."""
        return self.resize

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever the task around does."""
        return super().train(False)

    def adapt(self, images: Tensor) -> Tensor:
        """The student's images [N, C, H, W] as this teacher wants them."""
        if self.to_grey:
            images = (images * self.luma).sum(1, keepdim=True)
        elif self.in_chans != images.shape[1]:
            images = images.expand(-1, self.in_chans, -1, -1)
        if not self.same_normalisation:
            images = images * self.scale + self.shift
        if self.resize:
            images = F.interpolate(images, size=self.resize, mode="bicubic", antialias=True, align_corners=False)
        return images if self.dtype is None else images.to(self.dtype)

    @torch.no_grad()
    def forward(self, images: Tensor, stages: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] and the maps of ``stages`` for the student's images [N, C, H, W], without gradients."""
        with self.precision(images):
            return tapped_forward(self.model, self.adapt(images), stages)

    def precision(self, images: Tensor) -> contextlib.AbstractContextManager[Any]:
        """The teacher's own precision in place of the student's autocast."""
        return contextlib.nullcontext() if self.dtype is None else torch.autocast(images.device.type, enabled=False)


class TimmTeacher(FrozenTeacher):
    """A :class:`FrozenTeacher` in the form that timm's own distillation tasks take.

    It carries the student's normalisation as its own, so that timm's conversion between the two does nothing and ours,
    which also knows channels, fixed sizes and ``--mean/--std``, does it all.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, ...],
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(model, mean, std, input_size, dtype)
        self.pretrained_cfg = dict(mean=tuple(mean), std=tuple(std))
        self.num_classes = model.num_classes
        self.head_hidden_size = getattr(model, "head_hidden_size", None) or model.num_features

    def forward(self, images: Tensor, stages: Sequence[int] = ()) -> Tensor:  # type: ignore[override]
        """Logits [N, K] for the student's images [N, C, H, W]."""
        return super().forward(images, stages)[0].float()

    def forward_features(self, images: Tensor) -> Any:
        """The teacher's unpooled features, in its own layout."""
        with self.precision(images):
            return self.model.forward_features(self.adapt(images))  # type: ignore[operator]

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """The teacher's head over :meth:`forward_features`."""
        with self.precision(features):
            pooled: Tensor = self.model.forward_head(features, pre_logits=pre_logits)  # type: ignore[operator]
            return pooled.float()


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32).view(1, -1, 1, 1)
