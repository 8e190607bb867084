"""Channel contrast: each student channel should be its teacher channel and none of the others.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.

Axes: N samples of this rank, M = N * H * W activations of a channel, C channels (the same for both networks).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

TARGETS = ("hard", "soft")
DIRECTIONS = ("symmetric", "student")
# A channel whose variance is below this part of its mean square is constant: rounding, not signal.
_CONSTANT = 1e-10


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce.

    Every rank computes the same loss from the same sums, and DDP averages gradients over ranks: both together give the
    gradient of one process on the concatenated batch, without a factor.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_reduce(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _all_reduce(grads[0])


def _all_reduce(value: Tensor) -> Tensor:
    value = value.contiguous().clone()
    dist.all_reduce(value)
    return value


def _ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def channel_correlation(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation of all channel pairs over the global batch: [M, C] and [M, D] to [C, D] in [-1, 1].

    Also returns which channels vary at all, bool [C] and [D]: a constant channel has no direction, its correlations
    and their gradients are 0. Only sums of size C * D cross the ranks.

    Global means are taken off first and without gradient: one pass in float32 would lose the variance of channels with
    a large mean, and around the mean the derivative of a covariance by either mean is 0.
    """
    c, d = first.shape[1], second.shape[1]
    with torch.no_grad():
        sums = torch.cat([first.new_tensor([len(first)]), first.sum(0), second.sum(0)])
        sums = _all_reduce(sums) if _ranks() > 1 else sums
        count, (mean_first, mean_second) = sums[0], (sums[1:] / sums[0]).split([c, d])
    first, second = first - mean_first, second - mean_second
    square_first, square_second, product = first.square().sum(0), second.square().sum(0), first.T @ second
    if _ranks() > 1:
        everything = _SumOverRanks.apply(torch.cat([square_first, square_second, product.flatten()]))
        square_first, square_second, product = everything.split([c, d, c * d])
        product = product.view(c, d)
    scale_first, varies_first = _inverse_norm(square_first, count * mean_first.square())
    scale_second, varies_second = _inverse_norm(square_second, count * mean_second.square())
    return product * scale_first[:, None] * scale_second, varies_first, varies_second


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
) -> Tensor:
    """Contrast over channels of [M, C] activations: CE(R / tau, diag) by rows and columns; a float32 scalar.

    R [C, C] is the correlation of student channels with teacher channels. ``soft`` targets replace diag by the
    softmax of the teacher's own correlations / tau, so that channels alike in the teacher are no false negatives.
    ``direction="student"`` keeps the rows only. Constant teacher channels take no part: they carry no target.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.float(), teacher.float()
        correlation, _, alive = channel_correlation(student, teacher)
        keep = alive[None, :] & alive[:, None]
        # a large negative number and not -inf: 0 * inf in the products below would not be a number
        logits = (correlation / temperature).masked_fill(~keep, -1e4)
        wanted = _similarity_targets(teacher, temperature, keep) if targets == "soft" else None
        total = _cross_entropy_sum(logits.log_softmax(dim=1), wanted, alive)
        if direction == "symmetric":
            total = 0.5 * (total + _cross_entropy_sum(logits.log_softmax(dim=0).T, wanted, alive))
        return total / alive.sum().clamp(min=1)


@torch.no_grad()
def _similarity_targets(teacher: Tensor, temperature: float, keep: Tensor) -> Tensor:
    """Softmax of the teacher's own channel correlations / tau, [C, C]; rows of constant channels are 0."""
    similarity, _, _ = channel_correlation(teacher, teacher)
    return (similarity / temperature).masked_fill(~keep, -torch.inf).softmax(dim=1).nan_to_num()


def _cross_entropy_sum(log_probability: Tensor, wanted: Tensor | None, alive: Tensor) -> Tensor:
    """Cross-entropy [C, C] summed over rows, against ``wanted`` or the diagonal of ``alive`` channels."""
    if wanted is None:
        return -torch.where(alive, log_probability.diagonal(), 0.0).sum()
    return -(wanted * log_probability).sum()


class ChannelContrastiveLoss(nn.Module):
    """Channel contrast between feature maps [N, C, H, W] or features [N, C] (abstract of DCCD, TNNLS 2023).

    Maps of different grids are average-pooled to the smaller common one. Statistics are those of the global batch: N
    processes give the gradients of one process on the concatenated batch. Networks of different widths need a learned
    map on the student's side first, as :class:`dccd_timm.DCCDTask` has it.

    Args:
        temperature: tau of the contrast.
        targets: ``hard`` (the same channel only) or ``soft`` (the teacher's own channel similarities).
        direction: ``symmetric`` (both directions) or ``student`` (each student channel finds its teacher channel).

    Raises:
        ValueError: for unknown words, or features that do not share N and C.
    """

    def __init__(self, temperature: float = 0.1, targets: str = "hard", direction: str = "symmetric") -> None:
        super().__init__()
        if targets not in TARGETS or direction not in DIRECTIONS:
            raise ValueError(f"targets must be of {TARGETS} and direction of {DIRECTIONS}, got {targets}, {direction}")
        self.temperature, self.targets, self.direction = temperature, targets, direction

    def extra_repr(self) -> str:
        """Settings, for print()."""
        return f"temperature={self.temperature}, targets={self.targets}, direction={self.direction}"

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
        return channel_contrastive_loss(student, teacher, self.temperature, self.targets, self.direction)


def common_grid(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int]:
    """The smaller height and the smaller width of two grids."""
    return min(first[0], second[0]), min(first[1], second[1])


def pool_to(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average-pool [N, C, H, W] to ``grid``; a map of that size is returned as it is."""
    return features if features.shape[-2:] == grid else F.adaptive_avg_pool2d(features, grid)


def _channels_last_axis(features: Tensor) -> Tensor:
    """[N, C, H, W] to [N * H * W, C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
