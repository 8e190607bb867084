"""Channel contrast: each student channel should be its teacher channel and none of the others.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.

Axes: N samples of this rank, M = N * H * W activations of a channel, C channels (the same for both networks).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TARGETS = ("hard", "soft")
DIRECTIONS = ("symmetric", "student")
SCOPES = ("global", "local")
NEGATIVES = ("teacher", "student")
# A channel whose variance is below this part of its mean square is constant: rounding, not signal.
_CONSTANT = 1e-10


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose backward multiplies by the number of ranks, which DDP's average takes off again.

    The gradient of a sum over ranks is the sum of the ranks' gradients. Every rank computes the same loss from the same
    sums, so those are all equal, and need not be sent. That holds for one reduction, not for one behind another.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_reduce(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * _ranks()


def _all_reduce(value: Tensor) -> Tensor:
    value = value.contiguous().clone()
    dist.all_reduce(value)
    return value


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Products(torch.autograd.Function):
    """Squared norms [C] of the columns of ``first`` [M, C] and its products [C, D] with those of ``second`` [M, D].

    A function of its own because autograd would make three more passes over [M, C] for the norms; it differentiates by
    ``first`` alone: the teacher is frozen.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        return first.square().sum(0), first.T @ second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        first, second = ctx.saved_tensors
        return torch.addcmul(second @ grads[1].T, first, 2 * grads[0]), None


class _OwnProducts(torch.autograd.Function):
    """Products [C] of the columns of ``first`` [M, C] with those of ``second`` [M, C], and [C, C] with each other.

    A function of its own because autograd would go through [M, C] x [C, C] once for each side of a symmetric product.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        return (first * second).sum(0), first.T @ first

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        first, second = ctx.saved_tensors
        return torch.addcmul(first @ (grads[1] + grads[1].T), second, grads[0]), None


def _correlations(
    student: Tensor, teacher: Tensor, soft: bool, shared: bool, own_negatives: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Correlation of student channels with teacher channels: [M, C] twice to [C, C] in [-1, 1].

    With ``own_negatives`` that is its diagonal alone, and off it stand the student's channels with each other. Also
    returns the teacher's correlation with itself when ``soft``, and which of its channels vary, bool [C]: a constant
    channel has no direction, its correlations and their gradients are 0. With ``shared`` the batch is that of all
    ranks; only sums of C and C * C numbers cross them.

    Global means are taken off first and without gradient: one pass in float32 would lose the variance of channels with
    a large mean, and around the mean the derivative of a covariance by either mean is 0.
    """
    c = student.shape[1]
    with torch.no_grad():
        sums = torch.cat([student.new_tensor([len(student)]), student.sum(0), teacher.sum(0)])
        sums = _all_reduce(sums) if shared else sums
        count, (mean_student, mean_teacher) = sums[0], (sums[1:] / sums[0]).split(c)
        teacher = teacher - mean_teacher
        # the squared norms are the diagonal of the products, where those are needed anyway
        own = teacher.T @ teacher if soft else teacher.square().sum(0)
    # either the student's squared norms and all products with the teacher's channels, or the products of matching
    # channels and all among the student's own, whose diagonal is its squared norms
    products = _OwnProducts if own_negatives else _Products
    vector, product = products.apply(student - mean_student, teacher)
    if shared:
        parts = _SumOverRanks.apply(torch.cat([vector, product.flatten(), own.flatten()]))
        vector, product, own = parts[:c], parts[c : c + c * c].view(c, c), parts[c + c * c :].view_as(own).detach()
    square = product.diagonal() if own_negatives else vector
    scale_student, _ = _inverse_norm(square, count * mean_student.square())
    scale_teacher, varies = _inverse_norm(own.diagonal() if soft else own, count * mean_teacher.square())
    similarity = own * torch.outer(scale_teacher, scale_teacher) if soft else None
    if own_negatives:
        among = product * torch.outer(scale_student, scale_student)
        return among.diagonal_scatter(vector * scale_student * scale_teacher), similarity, varies
    return product * torch.outer(scale_student, scale_teacher), similarity, varies


def _inverse_norm(square: Tensor, square_of_mean: Tensor) -> tuple[Tensor, Tensor]:
    """1 / norm of centred channels [C] from their squared norms, 0 for constant ones, and which ones vary."""
    varies = square > _CONSTANT * (square + square_of_mean)
    # where() on both sides: the gradient of rsqrt at 0 is infinite, and infinity * 0 is not a number
    return torch.where(varies, torch.where(varies, square, 1.0).rsqrt(), 0.0), varies


def channel_contrastive_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 0.1,
    targets: str = "hard",
    direction: str = "symmetric",
    scope: str = "global",
    negatives: str = "teacher",
) -> Tensor:
    """Contrast over channels of [M, C] activations: CE(R / tau, diag) by rows and columns; a float32 scalar.

    R [C, C] is the correlation of student channels with teacher channels. ``negatives="student"`` leaves that on the
    diagonal alone: off it stand the correlations of the student's channels with each other, which have to differ.
    ``soft`` targets replace diag by the softmax of the teacher's own correlations / tau, so that channels alike in the
    teacher are no false negatives. ``direction="student"`` keeps the rows only. ``scope="local"`` takes the statistics
    of this rank alone. Constant teacher channels take no part: they carry no target.
    """
    with torch.autocast(student.device.type, enabled=False):
        shared = scope == "global" and _ranks() > 1
        correlation, similarity, alive = _correlations(
            student.float(), teacher.float(), targets == "soft", shared, negatives == "student"
        )
        keep = alive[None, :] & alive[:, None]
        # a large negative number and not -inf: 0 * inf in the products below would not be a number
        logits = (correlation / temperature).masked_fill(~keep, -1e4)
        # cross-entropy of rows whose targets sum to 1: log-sum-exp minus the logits under the targets
        total = torch.where(alive, logits.logsumexp(dim=1), 0.0).sum()
        if direction == "symmetric":
            total = 0.5 * (total + torch.where(alive, logits.logsumexp(dim=0), 0.0).sum())
        if similarity is None:
            total = total - torch.where(alive, logits.diagonal(), 0.0).sum()
        else:
            wanted = (similarity / temperature).masked_fill_(~keep, -torch.inf).softmax(dim=1).nan_to_num_()
            wanted = 0.5 * (wanted + wanted.T) if direction == "symmetric" else wanted
            total = total - (wanted * logits).sum()
        return total / alive.sum().clamp(min=1)


class ChannelContrastiveLoss(nn.Module):
    """Channel contrast between feature maps [N, C, H, W] or features [N, C] (abstract of DCCD, TNNLS 2023).

    Maps of different grids are average-pooled to the smaller common one. Statistics are those of the global batch:
    under DDP, N processes give the gradients of one process on the concatenated batch. Batches that are accumulated
    are not one batch: each has its own statistics, over all ranks. Networks of different widths need a learned map on
    the student's side first, as :class:`dccd_timm.DCCDTask` has it.

    Args:
        temperature: tau of the contrast.
        targets: ``hard`` (the same channel only) or ``soft`` (the teacher's own channel similarities).
        direction: ``symmetric`` (both directions) or ``student`` (each student channel finds its teacher channel); the
            same when negatives are the student's own.
        scope: ``global`` (channel statistics over the batches of all ranks) or ``local`` (of each rank by itself).
        negatives: what a student channel is told from: the ``teacher``'s other channels, or the ``student``'s own.

    Raises:
        ValueError: for unknown words, or features that do not share N and C.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        targets: str = "hard",
        direction: str = "symmetric",
        scope: str = "global",
        negatives: str = "teacher",
    ) -> None:
        super().__init__()
        words = {"targets": (targets, TARGETS), "direction": (direction, DIRECTIONS), "scope": (scope, SCOPES),
                 "negatives": (negatives, NEGATIVES)}  # fmt: skip
        for name, (word, known) in words.items():
            if word not in known:
                raise ValueError(f"{name} must be one of {known}, got {word!r}")
        self.temperature = temperature
        self.options = {"targets": targets, "direction": direction, "scope": scope, "negatives": negatives}

    def extra_repr(self) -> str:
        """Settings, for print()."""
        return ", ".join(f"{name}={word}" for name, word in {"temperature": self.temperature, **self.options}.items())

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Loss between [N, C, H, W] pairs, or [N, C]; a float32 scalar."""
        student, teacher = student_features, teacher_features
        if student.ndim != teacher.ndim or student.ndim not in (2, 4) or student.shape[:2] != teacher.shape[:2]:
            raise ValueError(
                f"features must be [N, C, H, W] or [N, C] with one N and C, got student {tuple(student.shape)} and"
                f" teacher {tuple(teacher.shape)}; map the student's channels to the teacher's first"
            )
        if student.ndim == 4:
            grid = common_grid(student.shape[-2:], teacher.shape[-2:])
            student, teacher = (_channels_last_axis(pool_to(f, grid)) for f in (student, teacher))
        return channel_contrastive_loss(student, teacher, self.temperature, **self.options)


def common_grid(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int]:
    """The smaller height and the smaller width of two grids."""
    return min(first[0], second[0]), min(first[1], second[1])


def pool_to(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average-pool [N, C, H, W] to ``grid``; a map of that size is returned as it is."""
    return features if features.shape[-2:] == grid else F.adaptive_avg_pool2d(features, grid)


def _channels_last_axis(features: Tensor) -> Tensor:
    """[N, C, H, W] to [N * H * W, C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
