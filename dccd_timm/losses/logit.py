"""Distillation losses between logits, one signature for all: ``name(student_logits, teacher_logits, target, ...)``.

Axes: N samples of this rank, K classes. z are logits. All are written from the formulas of their papers and compute in
float32, whatever the autocast dtype. Softened losses carry the factor T^2, which keeps their gradients comparable.
"""

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional as F

from dccd_timm.losses.products import all_reduce, num_ranks, sum_over_ranks

# Keeps a norm of 0 from dividing; the value that DIST's authors use.
_EPS = 1e-8


def kd(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    temperature: float = 4.0,
) -> Float32[Tensor, ""]:
    """Knowledge distillation: T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), batch mean; a float32 scalar.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2; in the batch mean and the
    direction equal to timm's LogitDistillationTask. ``target`` is not read.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student = F.log_softmax(student_logits.float() / temperature, dim=-1)
        teacher = F.log_softmax(teacher_logits.float() / temperature, dim=-1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def ls(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    temperature: float = 2.0,
) -> Float32[Tensor, ""]:
    """KD between standardised logits, (z - mean) / std over the classes of each sample; a float32 scalar.

    Sun et al., "Logit Standardization in Knowledge Distillation" (CVPR 2024), equation 8. ``target`` is not read.

    Raises:
        ValueError: for one class, which has no standard deviation.
    """
    _check_classes(student_logits, "logit standardisation")
    with torch.autocast(student_logits.device.type, enabled=False):
        student, teacher = (_standardised(z.float()) for z in (student_logits, teacher_logits))
    return kd(student, teacher, temperature=temperature)


def dkd(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    alpha: float = 1.0,
    beta: float | Float[Tensor, "N"] = 8.0,
    temperature: float = 4.0,
) -> Float32[Tensor, ""]:
    """Decoupled KD: T^2 * (alpha * KL between [p_target, rest] + beta * KL among the other classes); float32 scalar.

    Zhao et al., "Decoupled Knowledge Distillation" (CVPR 2022), equation 7. With alpha 1 and beta 1 - p_target of the
    teacher, one value a sample, it is KD.

    Args:
        student_logits, teacher_logits: [N, K].
        target: classes [N], or shares [N, K], of which the largest counts.
        alpha: weight of the target's part.
        beta: weight of the other classes' part, for the batch or for each sample.
        temperature: T.

    Raises:
        ValueError: without targets or with one class.
    """
    _check_classes(student_logits, "decoupled KD")
    with torch.autocast(student_logits.device.type, enabled=False):
        labels = hard_targets(target, "decoupled KD")[:, None]
        student, teacher = (_decoupled(z.float() / temperature, labels) for z in (student_logits, teacher_logits))
        of_target = _kl(student[0], teacher[0])
        of_others = _kl(student[1], teacher[1])
        return (alpha * of_target + beta * of_others).mean() * temperature**2


def dist(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Float32[Tensor, ""]:
    """T^2 * (beta * (1 - mean correlation of rows) + gamma * (1 - mean correlation of columns)); a float32 scalar.

    Rows and columns are those of p = softmax(z / T). Huang et al., "Knowledge Distillation from A Stronger Teacher"
    (NeurIPS 2022), equations 7 to 10. A column, one class over the batch, is that of the global batch: N ranks give the
    gradients of one process on the concatenated batch; five sums a class cross them. ``target`` is not read.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student, teacher = ((z.float() / temperature).softmax(dim=1) for z in (student_logits, teacher_logits))
        rows = _cosine(*(p - p.mean(dim=1, keepdim=True) for p in (student, teacher)))
        columns = _column_correlation(student, teacher)
        return (beta * (1 - rows.mean()) + gamma * (1 - columns.mean())) * temperature**2


def wttm(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    gamma: float = 0.1,
) -> Float32[Tensor, ""]:
    """Transformed teacher matching: mean of u * KL(p_t^gamma / u || p_s), u = sum of p_t^gamma; a float32 scalar.

    Zheng, Yang, "Knowledge Distillation Based on Transformed Teacher Matching" (ICLR 2024), equation 14. The teacher
    alone is softened, by the temperature 1 / gamma; u, largest where the teacher is unsure, weighs the samples.
    ``target`` is not read.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        powers = gamma * teacher_logits.float().log_softmax(dim=1)
        log_weight = powers.logsumexp(dim=1)
        divergence = _kl(student_logits.float().log_softmax(dim=1), powers - log_weight[:, None])
        return (log_weight.exp() * divergence).mean()


def ofa(
    student_logits: Float[Tensor, "N K"],
    teacher_logits: Float[Tensor, "N K"],
    target: Tensor | None = None,
    exponent: float = 1.0,
    temperature: float = 1.0,
) -> Float32[Tensor, ""]:
    """One-for-all KD: mean of -sum((p_t + 1_target)^exponent - 1_target) log p_s; a float32 scalar.

    Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation" (NeurIPS
    2023), equation 6. An exponent above 1 raises the target's share where the teacher is sure of it.

    Args:
        student_logits, teacher_logits: [N, K].
        target: classes [N], or shares [N, K], of which the largest counts.
        exponent: of the target's share.
        temperature: of both softmaxes.

    Raises:
        ValueError: without targets.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        mask = F.one_hot(hard_targets(target, "OFA"), student_logits.shape[1])
        teacher = (teacher_logits.float() / temperature).softmax(dim=1)
        student = (student_logits.float() / temperature).log_softmax(dim=1)
        shares = (teacher + mask) ** exponent - mask
        return -(shares * student).sum(dim=1).mean()


def hard_targets(target: Tensor | None, name: str) -> Int64[Tensor, "N"]:
    """Classes [N] of targets [N] or [N, K].

    Raises:
        ValueError: where there are none.
    """
    if target is None:
        raise ValueError(f"{name} needs the target class of each sample")
    return target.argmax(dim=1) if target.ndim == 2 else target.long()


def _check_classes(logits: Tensor, name: str) -> None:
    if logits.shape[1] < 2:
        raise ValueError(f"{name} needs at least 2 classes, got logits {tuple(logits.shape)}")


def _standardised(logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    centred = logits - logits.mean(dim=1, keepdim=True)
    scaled: Tensor = centred / (logits.std(dim=1, keepdim=True) + 1e-7)
    return scaled


def _kl(student: Float[Tensor, "N K"], teacher: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
    """KL(teacher || student) of log-probabilities, for each sample."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def _decoupled(
    scores: Float[Tensor, "N K"], labels: Int64[Tensor, "N 1"]
) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N K"]]:
    """Log-probabilities of [target, rest], and those of the other classes among themselves (the target's is tiny)."""
    # a large negative number and not -inf, whose difference with itself is not a number
    others = scores.scatter(1, labels, -1e9)
    both = torch.cat([scores.gather(1, labels), others.logsumexp(dim=1, keepdim=True)], dim=1)
    return both.log_softmax(dim=1), others.log_softmax(dim=1)


def _cosine(first: Float[Tensor, "N K"], second: Float[Tensor, "N K"]) -> Float[Tensor, "N"]:
    cosine: Tensor = (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1) + _EPS)
    return cosine


def _column_correlation(student: Float[Tensor, "N K"], teacher: Float[Tensor, "N K"]) -> Float[Tensor, "K"]:
    """Correlation of matching columns over the batches of all ranks."""
    shared = num_ranks() > 1
    with torch.no_grad():
        # the derivative of a covariance by either mean is 0 around the mean; new_tensor would wait for a GPU
        sums = torch.cat([student.new_full((1,), len(student)), student.sum(0), teacher.sum(0)])
        sums = all_reduce(sums) if shared else sums
        mean_student, mean_teacher = (sums[1:] / sums[0]).chunk(2)
    student, teacher = student - mean_student, teacher - mean_teacher
    parts = torch.cat([(student * teacher).sum(0), student.square().sum(0), teacher.square().sum(0)])
    product, of_student, of_teacher = (sum_over_ranks(parts) if shared else parts).chunk(3)
    # where() on both sides: the gradient of sqrt at 0 is infinite
    norm = torch.where(of_student > 0, torch.where(of_student > 0, of_student, 1.0).sqrt(), 0.0)
    correlation: Tensor = product / (norm * of_teacher.sqrt() + _EPS)
    return correlation
