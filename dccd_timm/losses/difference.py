"""Dynamic difference: how an answer changes between two views of one image should match the teacher.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.losses.logit import kd

Form = Literal["kl", "mse"]


def dynamic_difference_loss(
    student_difference: Float[Tensor, "B K"],
    teacher_difference: Float[Tensor, "B K"],
    temperature: float = 4.0,
    form: Form = "kl",
) -> Float32[Tensor, ""]:
    """Distance between the differences D = z(view a) - z(view b) of logits [B, K]; a float32 scalar.

    ``kl``: T^2 * KL(softmax(D_t / T) || softmax(D_s / T)), averaged over D and -D, the two orders of the pair.
    ``mse``: mean squared error over batch and classes, in logits squared. Both ignore a constant added to all logits
    of a sample: softmax by itself, the other because the class mean is taken off first.
    """
    student, teacher = student_difference.float(), teacher_difference.float()
    if form == "mse":
        with torch.autocast(student.device.type, enabled=False):
            student, teacher = (d - d.mean(dim=-1, keepdim=True) for d in (student, teacher))
            return F.mse_loss(student, teacher)
    return 0.5 * (kd(student, teacher, temperature=temperature) + kd(-student, -teacher, temperature=temperature))


class DynamicDifferenceLoss(nn.Module):
    """Difference term between the logits of two views of the same images (abstract of DCCD, TNNLS 2023).

    Args:
        temperature: of the softmax over differences; only for ``form="kl"``.
        views: number of views V in a view-major batch.
        form: ``kl`` or ``mse``.
        pair: the two views, numbered from 0, whose difference is taken.

    Raises:
        ValueError: for an unknown form, fewer than two views or a pair that is not two of them.
    """

    def __init__(
        self, temperature: float = 4.0, views: int = 2, form: Form = "kl", pair: Sequence[int] = (0, 1)
    ) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {get_args(Form)}, got {form!r}")
        if views < 2:
            raise ValueError(f"a difference needs at least 2 views of an image, got {views}")
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= v < views for v in pair):
            raise ValueError(f"pair must be two different views below {views}, got {tuple(pair)}")
        self.temperature, self.views, self.form, self.pair = temperature, views, form, (pair[0], pair[1])

    def extra_repr(self) -> str:
        """Settings, for print()."""
        return f"temperature={self.temperature}, views={self.views}, form={self.form}, pair={self.pair}"

    def forward(
        self, student_logits: Float[Tensor, "_ _"], teacher_logits: Float[Tensor, "_ _"]
    ) -> Float32[Tensor, ""]:
        """Loss over view-major logits [V * B, K] (row v * B + b is view v of image b); a float32 scalar."""
        if student_logits.shape != teacher_logits.shape or len(student_logits) % self.views:
            raise ValueError(
                f"logits must share one [{self.views} * B, K], got student {tuple(student_logits.shape)} and teacher"
                f" {tuple(teacher_logits.shape)}"
            )
        a, b = self.pair
        student: Float[Tensor, "V B K"] = student_logits.float().unflatten(0, (self.views, -1))
        teacher: Float[Tensor, "V B K"] = teacher_logits.float().unflatten(0, (self.views, -1))
        return dynamic_difference_loss(student[a] - student[b], teacher[a] - teacher[b], self.temperature, self.form)
