"""The frozen teacher beside a student: in eval mode always, fed as it was trained."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self, overload

import torch
from jaxtyping import Float, Float32
from timm.data import resolve_input_data_config
from timm.models import get_model_input_config
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.errors import one_line
from dccd_timm.models.fold import fold_batch_norms
from dccd_timm.models.taps import tapped_forward, tapped_maps
from dccd_timm.models.teacher import freeze
from dccd_timm.models.timm_model import as_timm

# ITU-R BT.601 luma, what PIL's convert("L") uses
_LUMA = (0.299, 0.587, 0.114)


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
    #: Whether the pooled features of a model without a head are wanted.
    embeds: bool = False

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
        # an encoder without get_classifier does not pool: it raises from its forward_head
        pools = hasattr(model, "forward_head") and (as_timm(model).num_classes or hasattr(model, "get_classifier"))
        self.has_features = hasattr(model, "forward_features") and bool(pools)
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
        """Logits in float32 for the student's images, without gradients; with ``stages`` also the maps of those.

        A teacher without a head has logits [N, 0], or its pooled features in their place where it :attr:`embeds`.
        """
        with self._precision(images):
            if self.num_classes or self.embeds:
                logits, maps = tapped_forward(self.model, self.adapt(images), stages or ())
            else:
                maps = tapped_maps(self.model, self.adapt(images), stages) if stages else []
                logits = images.new_empty(len(images), 0)
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
