"""Distillation losses between feature maps, one signature for all: ``name(student_features, teacher_features, ...)``.

Axes: N samples of this rank, C channels, H x W positions. All are written from the formulas of their papers and compute
in float32, whatever the autocast dtype. Maps of different grids are average-pooled to the smaller common one where a
formula compares positions. What relates samples of a batch (:func:`sp`, :func:`rkd`) is that of each rank.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from dccd_timm.losses.contrast import common_grid, pool_to

Maps = Float[Tensor, "_ _ _ _"]  # [N, C, H, W]; both networks have their own C, H and W


def fitnet(student_features: Maps, teacher_features: Maps) -> Float32[Tensor, ""]:
    """Mean squared error of feature maps [N, C, H, W] of equal channels; a float32 scalar.

    Romero et al., "FitNets: Hints for Thin Deep Nets" (ICLR 2015), equation 3.

    Raises:
        ValueError: for different numbers of channels: the student's have to be mapped first.
    """
    _check_channels(student_features, teacher_features)
    with torch.autocast(student_features.device.type, enabled=False):
        return F.mse_loss(*_on_common_grid(student_features, teacher_features))


def at(student_features: Maps, teacher_features: Maps) -> Float32[Tensor, ""]:
    """Attention transfer: mean squared difference of the unit vectors of mean_c f^2 over positions; a float32 scalar.

    Zagoruyko, Komodakis, "Paying More Attention to Attention" (ICLR 2017), equation 2; the mean over positions is that
    of CRD's benchmark, to which its weight of 1000 belongs.
    """
    with torch.autocast(student_features.device.type, enabled=False):
        student, teacher = _on_common_grid(student_features, teacher_features)
        return F.mse_loss(_attention(student), _attention(teacher))


def sp(student_features: Tensor, teacher_features: Tensor) -> Float32[Tensor, ""]:
    """Similarity-preserving: ||G_s - G_t||^2 / N^2, G the products of samples with unit rows [N, N]; a float32 scalar.

    Tung, Mori, "Similarity-Preserving Knowledge Distillation" (ICCV 2019), equation 4. Features are [N, ...], of any
    two shapes.
    """
    with torch.autocast(student_features.device.type, enabled=False):
        return F.mse_loss(_similarity(student_features.float()), _similarity(teacher_features.float()))


def rkd(
    student_features: Tensor,
    teacher_features: Tensor,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    max_samples: int = 64,
) -> Float32[Tensor, ""]:
    """Relational KD: smooth L1 of all distances of two samples and of all angles of three; a float32 scalar.

    Park et al., "Relational Knowledge Distillation" (CVPR 2019), equations 4 to 8. Features are [N, C], or maps, which
    are pooled. N^3 angles: the first ``max_samples`` samples of a batch take part.
    """
    with torch.autocast(student_features.device.type, enabled=False):
        pooled = (
            f.float().flatten(2).mean(2) if f.ndim > 2 else f.float() for f in (student_features, teacher_features)
        )
        student, teacher = (_relations(f[:max_samples]) for f in pooled)
        distance, angle = (F.smooth_l1_loss(s, t) for s, t in zip(student, teacher, strict=True))
        return distance_weight * distance + angle_weight * angle


def wkd(
    student_features: Maps, teacher_features: Maps, mean_weight: float = 2.0, grid: int = 1, eps: float = 1e-5
) -> Float32[Tensor, ""]:
    """Wasserstein distance of Gaussians: mean_weight * ||mu_s - mu_t||^2 + ||sd_s - sd_t||^2; a float32 scalar.

    Lv, Yang, Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation" (NeurIPS 2024),
    equation 8 with diagonal covariances: mean and standard deviation of each channel over the positions of a cell;
    summed over channels, mean over samples and the ``grid`` x ``grid`` cells.

    Raises:
        ValueError: for different numbers of channels, or cells of one position, which have no deviation.
    """
    _check_channels(student_features, teacher_features)
    with torch.autocast(student_features.device.type, enabled=False):
        (mean_s, deviation_s), (mean_t, deviation_t) = (
            _cell_statistics(f.float(), grid, eps) for f in (student_features, teacher_features)
        )
        squares = mean_weight * (mean_s - mean_t).square() + (deviation_s - deviation_t).square()
        return squares.sum(dim=1).mean()


def _check_channels(student: Tensor, teacher: Tensor) -> None:
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"features must share N and C, got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}; map"
            " the student's channels to the teacher's first"
        )


def _on_common_grid(student: Maps, teacher: Maps) -> tuple[Maps, Maps]:
    grid = common_grid(student.shape[-2:], teacher.shape[-2:])
    return pool_to(student.float(), grid), pool_to(teacher.float(), grid)


def _attention(features: Float[Tensor, "N C H W"]) -> Float[Tensor, "N M"]:
    return F.normalize(features.square().mean(dim=1).flatten(1), dim=1)


def _similarity(features: Float[Tensor, "N *_"]) -> Float[Tensor, "N N"]:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


def _relations(features: Float[Tensor, "N C"]) -> tuple[Float[Tensor, "N N"], Float[Tensor, "N N N"]]:
    """Distances of all pairs over their mean, and the cosines at each sample between the directions to two others."""
    differences = features[None, :] - features[:, None]
    distances = differences.norm(dim=2)
    pairs = max(1, len(features) * (len(features) - 1))
    distances = distances / (distances.sum() / pairs).clamp(min=1e-12)
    directions = F.normalize(differences, dim=2)
    return distances, directions @ directions.transpose(1, 2)


def _cell_statistics(features: Maps, grid: int, eps: float) -> tuple[Float[Tensor, "N C _"], Float[Tensor, "N C _"]]:
    """Mean and standard deviation of each channel in each of grid x grid cells, whose borders are those of pooling."""
    height, width = features.shape[-2:]
    means, deviations = [], []
    for rows in _cells(height, grid):
        for columns in _cells(width, grid):
            cell = features[:, :, rows, columns].flatten(2)
            if cell.shape[2] < 2:
                raise ValueError(
                    f"a cell of {grid} x {grid} on maps of {height} x {width} has one position, which has no"
                    " deviation: use a smaller grid or an earlier stage"
                )
            means.append(cell.mean(dim=2))
            deviations.append((cell.var(dim=2) + eps).sqrt())
    return torch.stack(means, dim=2), torch.stack(deviations, dim=2)


def _cells(size: int, grid: int) -> list[slice]:
    return [slice(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)]
