"""Knowledge distillation: the student's softened answer should be the teacher's."""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F


def distillation_loss(
    student_logits: Float[Tensor, "N K"], teacher_logits: Float[Tensor, "N K"], temperature: float
) -> Float32[Tensor, ""]:
    """T^2 * KL(teacher || student) of softened logits [N, K], mean over the batch; a float32 scalar.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2; in the batch mean and the
    direction equal to timm's LogitDistillationTask.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
