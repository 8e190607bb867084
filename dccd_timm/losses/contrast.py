"""Channel contrast: each student channel should be its teacher channel and none of the others.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.

Axes: N samples of this rank, M = N * H * W activations of a channel, C channels (the same for both networks).
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.losses.products import all_reduce, num_ranks, own_products, products, sum_over_ranks

Targets = Literal["hard", "soft"]
Direction = Literal["symmetric", "student"]
Scope = Literal["global", "local"]
Negatives = Literal["teacher", "student"]

# A channel whose variance is below this part of its mean square is constant: rounding, not signal.
_CONSTANT = 1e-10


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
        negatives: what a student channel must differ from: the ``teacher``'s other channels or the ``student``'s own.

    Raises:
        ValueError: for an unknown choice, or features that do not share N and C.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        targets: Targets = "soft",
        direction: Direction = "symmetric",
        scope: Scope = "global",
        negatives: Negatives = "teacher",
    ) -> None:
        super().__init__()
        check_choice("targets", targets, get_args(Targets))
        check_choice("direction", direction, get_args(Direction))
        check_choice("scope", scope, get_args(Scope))
        check_choice("negatives", negatives, get_args(Negatives))
        self.temperature = temperature
        self.targets, self.direction, self.scope, self.negatives = targets, direction, scope, negatives

    def numbers_summed(self, channels: int) -> int:
        """How many numbers ranks sum up for one loss over so many channels."""
        if self.scope == "local":
            return 0
        own = channels * channels if self.targets == "soft" else channels
        return 1 + 2 * channels + channels + channels * channels + own

    def extra_repr(self) -> str:
        """Settings, for print()."""
        names = ("temperature", "targets", "direction", "scope", "negatives")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def forward(
        self, student_features: Float[Tensor, "_ _ *student_grid"], teacher_features: Float[Tensor, "_ _ *teacher_grid"]
    ) -> Float32[Tensor, ""]:
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
        return channel_contrastive_loss(
            student, teacher, self.temperature, self.targets, self.direction, self.scope, self.negatives
        )


def channel_contrastive_loss(
    student: Float[Tensor, "M C"],
    teacher: Float[Tensor, "M C"],
    temperature: float = 0.1,
    targets: Targets = "soft",
    direction: Direction = "symmetric",
    scope: Scope = "global",
    negatives: Negatives = "teacher",
) -> Float32[Tensor, ""]:
    """Contrast over channels of [M, C] activations: CE(R / tau, diag) by rows and columns; a float32 scalar.

    R [C, C] is the correlation of student channels with teacher channels. ``negatives="student"`` leaves that on the
    diagonal alone: off it stand the correlations of the student's channels with each other, which have to differ.
    ``soft`` targets replace diag by the softmax of the teacher's own correlations / tau, so that channels alike in the
    teacher are no false negatives. ``direction="student"`` keeps the rows only. ``scope="local"`` takes the statistics
    of this rank alone. Constant teacher channels take no part: they carry no target.
    """
    with torch.autocast(student.device.type, enabled=False):
        shared = scope == "global" and num_ranks() > 1
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


class _Correlations(NamedTuple):
    """Correlations in [-1, 1] of student channels (rows) and teacher channels (columns).

    ``similarity`` is that of the teacher's channels with each other, where it was asked for. A teacher channel that
    does not vary has no direction: its correlations and their gradients are 0.
    """

    correlation: Float[Tensor, "C C"]
    similarity: Float[Tensor, "C C"] | None
    varies: Bool[Tensor, "C"]


def _correlations(
    student: Float[Tensor, "M C"], teacher: Float[Tensor, "M C"], soft: bool, shared: bool, own_negatives: bool
) -> _Correlations:
    """Correlation of student channels with teacher channels over M activations.

    With ``own_negatives`` that is its diagonal alone, and off it stand the student's channels with each other. With
    ``soft`` there is also the teacher's similarity. With ``shared`` the batch is that of all ranks; only sums of C and
    C * C numbers cross them.

    Global means are taken off first and without gradient: one pass in float32 would lose the variance of channels with
    a large mean, and around the mean the derivative of a covariance by either mean is 0.
    """
    c = student.shape[1]
    with torch.no_grad():
        # new_full and not new_tensor, whose copy to a GPU is waited for
        sums = torch.cat([student.new_full((1,), len(student)), student.sum(0), teacher.sum(0)])
        sums = all_reduce(sums) if shared else sums
        count, (mean_student, mean_teacher) = sums[0], (sums[1:] / sums[0]).split(c)
        teacher = teacher - mean_teacher
        # the squared norms are the diagonal of the products, where those are needed anyway
        own = teacher.T @ teacher if soft else teacher.square().sum(0)
    # either the student's squared norms and all products with the teacher's channels, or the products of matching
    # channels and all among the student's own, whose diagonal is its squared norms
    vector, product = (own_products if own_negatives else products)(student - mean_student, teacher)
    if shared:
        parts = sum_over_ranks(torch.cat([vector, product.flatten(), own.flatten()]))
        vector, product, own = parts[:c], parts[c : c + c * c].view(c, c), parts[c + c * c :].view_as(own).detach()
    square = product.diagonal() if own_negatives else vector
    scale_student, _ = _inverse_norm(square, count * mean_student.square())
    scale_teacher, varies = _inverse_norm(own.diagonal() if soft else own, count * mean_teacher.square())
    similarity = own * torch.outer(scale_teacher, scale_teacher) if soft else None
    if own_negatives:
        among = product * torch.outer(scale_student, scale_student)
        matching = among.diagonal_scatter(vector * scale_student * scale_teacher)
        return _Correlations(matching, similarity, varies)
    return _Correlations(product * torch.outer(scale_student, scale_teacher), similarity, varies)


def _inverse_norm(
    square: Float[Tensor, "C"], square_of_mean: Float[Tensor, "C"]
) -> tuple[Float[Tensor, "C"], Bool[Tensor, "C"]]:
    """1 / norm of centred channels from their squared norms, 0 for constant ones, and which ones vary."""
    varies = square > _CONSTANT * (square + square_of_mean)
    # where() on both sides: the gradient of rsqrt at 0 is infinite, and infinity * 0 is not a number
    return torch.where(varies, torch.where(varies, square, 1.0).rsqrt(), 0.0), varies


def check_choice(name: str, choice: str, known: tuple[str, ...]) -> None:
    """Refuse what is not one of the known choices.

    Raises:
        ValueError: names them all.
    """
    if choice not in known:
        raise ValueError(f"{name} must be one of {known}, got {choice!r}")


def common_grid(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, int]:
    """The smaller height and the smaller width of two grids."""
    return min(first[0], second[0]), min(first[1], second[1])


def pool_to(features: Float[Tensor, "N C _ _"], grid: tuple[int, int]) -> Float[Tensor, "N C h w"]:
    """Average-pool [N, C, H, W] to ``grid``; a map of that size is returned as it is."""
    return features if features.shape[-2:] == grid else F.adaptive_avg_pool2d(features, grid)


def _channels_last_axis(features: Float[Tensor, "N C H W"]) -> Float[Tensor, "M C"]:
    """[N, C, H, W] to [N * H * W, C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
