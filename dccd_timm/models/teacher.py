"""The frozen teacher: loaded with its own head, in eval mode always, fed as it was trained."""

import argparse
import difflib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Self, overload

import timm
import torch
from jaxtyping import Float, Float32
from timm.data import resolve_input_data_config
from timm.models import get_model_input_config, load_checkpoint, load_state_dict, split_model_name_tag
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.fold import fold_batch_norms
from dccd_timm.models.load import check_name, create
from dccd_timm.models.taps import single_head, tapped_forward
from dccd_timm.models.timm_model import as_timm
from dccd_timm.models.weights import check_weights

# ITU-R BT.601 luma, what PIL's convert("L") uses
_LUMA = (0.299, 0.587, 0.114)


_CHOOSE = "choose a teacher trained on this data set (hf-hub:, local-dir:, or a timm name with a checkpoint)"


def load_teacher(
    name: str,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    role: str = "teacher",
    advice: str = _CHOOSE,
) -> nn.Module:
    """A teacher with the head that its weights were trained with, in eval mode and without gradients.

    Args:
        name: timm name (timm's pretrained weights, or ``checkpoint``), ``hf-hub:owner/name`` or ``local-dir:path``.
        checkpoint: safetensors file or timm checkpoint for a plain timm name; never unpickled beyond weights.
        num_classes: what the head must have; None takes any.
        role: what errors call it.
        advice: what to do about a head of another size.

    Raises:
        UserError: unknown name, unreadable or unfitting weights, or a head of another size. A head is never re-drawn.
    """
    if checkpoint:
        model = _from_checkpoint(name, checkpoint, num_classes, role, advice)
    else:
        model = create(name, role, pretrained=True)
    check_classes(model, num_classes, name, advice)
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


def freeze(model: nn.Module) -> nn.Module:
    """Eval mode, no gradients, and the mean of its heads as answer."""
    single_head(model)
    return model.eval().requires_grad_(False)


def _from_checkpoint(name: str, checkpoint: str, num_classes: int | None, role: str, advice: str) -> nn.Module:
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
    if num_classes and head_classes and head_classes != num_classes:
        raise UserError(
            f"teacher checkpoint {checkpoint} has {head_classes} classes, the student {num_classes}: {advice}"
        )
    shape = dict(pretrained=False, num_classes=head_classes or num_classes, in_chans=in_chans)
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


class FrozenTeacher(nn.Module):
    """A frozen teacher that takes the student's images: other normalisation, channels and size are undone here.

    It is what DCCDTask, timm's own distillation tasks and the evaluation all take. timm's tasks convert between the
    normalisations that both networks name; the teacher names the student's, so that theirs does nothing and ours, which
    also knows channels, fixed sizes and ``--mean/--std``, does it all.

    Args:
        model: any timm classifier.
        mean: the student's normalisation, one value or one per channel, in [0, 1] pixel units.
        std: likewise.
        input_size: the student's images [C, H, W].
        dtype: precision that the model is brought to and computes in, under any autocast; None leaves both alone.
        fold: whether to take a copy of the model with its BatchNorms folded into the convolutions, where it has any.
        img_size: the side of the images that the model sees: ``own`` (its configuration's ``input_size``), ``student``
            (as they come) or a number of pixels.

    Raises:
        ValueError: for channels that cannot be converted, or a size that the model does not take.
    """

    scale: Tensor
    shift: Tensor
    luma: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: Sequence[int],
        dtype: torch.dtype | None = None,
        fold: bool = False,
        img_size: str | int = "own",
    ) -> None:
        super().__init__()
        self.num_parameters = sum(p.numel() for p in model.parameters())  # folding takes some away
        self.model = fold_batch_norms(freeze(model)) if fold else freeze(model)
        self.has_features = hasattr(model, "forward_features") and hasattr(model, "forward_head")
        self.dtype = dtype
        # what timm's tasks read
        self.pretrained_cfg = dict(mean=tuple(mean), std=tuple(std))
        self.num_classes = as_timm(model).num_classes
        self.head_hidden_size = getattr(model, "head_hidden_size", None) or getattr(model, "num_features", None)

        own = get_model_input_config(model)
        self.in_chans: int = own["input_size"][0]
        self._convert_pixels(mean, std, input_size[0])
        self.resized = self._choose_size(img_size, own["input_size"][1:], input_size[1:], own["fixed_input_size"])
        self.model.to(dtype)
        self.eval()

    def _convert_pixels(self, mean: Sequence[float], std: Sequence[float], student_chans: int) -> None:
        """Prepare what turns the student's pixels into the teacher's."""
        if self.in_chans != student_chans and (student_chans, self.in_chans) not in ((1, 3), (3, 1)):
            raise ValueError(
                f"images of {student_chans} channels cannot be shown to a teacher of {self.in_chans}: set in_chans to"
                f" {self.in_chans}"
            )
        self.to_grey = student_chans == 3 and self.in_chans == 1
        # x_teacher = (x * std_s + mean_s - mean_t) / std_t, folded into one multiplication and one addition, and left
        # out where both networks agree: decided here, since a comparison in each step would wait for the device.
        own = resolve_input_data_config(self.model)
        mean_s, std_s, mean_t, std_t = (_per_channel(v) for v in (mean, std, own["mean"], own["std"]))
        if self.to_grey:
            luma = torch.tensor(_LUMA).view(1, 3, 1, 1)
            self.register_buffer("luma", luma * std_s / std_t, persistent=False)
            scale, shift = torch.ones(1), ((luma * mean_s).sum() - mean_t) / std_t
        else:
            scale, shift = std_s / std_t, (mean_s - mean_t) / std_t
        self.same_normalisation = bool((scale == 1).all() and (shift == 0).all())
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def _choose_size(
        self, wanted: str | int, own: Sequence[int], student: Sequence[int], fixed: bool
    ) -> tuple[int, int] | None:
        """Height and width that images are resized to; None where they come in the right size."""
        sizes: dict[str | int, Sequence[int]] = {"own": own, "student": student}
        size = sizes[wanted] if wanted in sizes else (int(wanted),) * 2
        if tuple(size) != tuple(own):
            self._check_size(size[0], size[1], fixed)
        return None if tuple(size) == tuple(student) else (size[0], size[1])

    @torch.no_grad()
    def _check_size(self, height: int, width: int, fixed: bool) -> None:
        problem = "it has one size"
        if not fixed:
            image = next(self.model.parameters()).new_zeros(1, self.in_chans, height, width)
            try:
                self.model(image)
                return
            except (AssertionError, RuntimeError, ValueError) as error:
                problem = one_line(error)
        raise ValueError(
            f"the teacher {type(self.model).__name__} does not take images of {height}x{width} ({problem}):"
            " show it images of its own size (own)"
        )

    def conversions(self, student_size: Sequence[int]) -> str:
        """What is done to a student's images [C, H, W] before the model sees them, for people; empty for nothing."""
        channels, height, width = self.input_size(student_size)
        steps = [f"resized from {student_size[1]}x{student_size[2]}"] if self.resized else []
        if channels != student_size[0]:
            steps.append("made grey" if self.to_grey else "made colour")
        if not self.same_normalisation:
            own = resolve_input_data_config(self.model)
            mean, std = (" ".join(f"{value:.4g}" for value in own[name]) for name in ("mean", "std"))
            steps.append(f"normalised with its own mean {mean} and std {std}")
        return f"{channels}x{height}x{width}, {', '.join(steps)}" if steps else ""

    def input_size(self, student_size: Sequence[int]) -> tuple[int, int, int]:
        """Channels, height and width of the images that the model gets for a student's images [C, H, W]."""
        height, width = self.resized or (student_size[1], student_size[2])
        return self.in_chans, height, width

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever the task around does."""
        return super().train(False)

    def adapt(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C_t H_t W_t"]:
        """The student's images as this teacher wants them."""
        if self.to_grey:
            images = (images * self.luma).sum(1, keepdim=True)
        elif self.in_chans != images.shape[1]:
            images = images.expand(-1, self.in_chans, -1, -1)
        if not self.same_normalisation:
            images = images * self.scale + self.shift
        if self.resized:
            images = F.interpolate(images, size=self.resized, mode="bicubic", antialias=True, align_corners=False)
        return images if self.dtype is None else images.to(self.dtype)

    @overload
    def forward(self, images: Tensor, stages: None = None) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, stages: Sequence[int]) -> tuple[Tensor, list[Tensor]]: ...

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "N C H W"], stages: Sequence[int] | None = None
    ) -> Float32[Tensor, "N K"] | tuple[Float32[Tensor, "N K"], list[Tensor]]:
        """Logits in float32 for the student's images, without gradients; with ``stages`` also the maps of those."""
        with self._precision(images):
            logits, maps = tapped_forward(self.model, self.adapt(images), stages or ())
        return logits.float() if stages is None else (logits.float(), maps)

    def forward_features(self, images: Float[Tensor, "N C H W"]) -> Tensor:
        """The teacher's unpooled features, in its own layout."""
        with self._precision(images):
            return as_timm(self.model).forward_features(self.adapt(images))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The teacher's head over :meth:`forward_features`."""
        with self._precision(features):
            return as_timm(self.model).forward_head(features, pre_logits=pre_logits).float()

    def _precision(self, images: Tensor) -> AbstractContextManager[object]:
        """The teacher's own precision in place of the student's autocast."""
        return nullcontext() if self.dtype is None else torch.autocast(images.device.type, enabled=False)


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32).view(1, -1, 1, 1)
