"""How redundant a network's channels are: effective rank and channel correlation."""

import torch
from torch import Tensor

# Of the linear map from student to teacher channels, as a part of a channel's variance.
_RIDGE = 1e-2


def covariance_spectrum(features: Tensor) -> Tensor:
    """Shares of variance along the principal directions of features [N, C], descending, summing to 1; float64 [C]."""
    centred = features.double() - features.double().mean(0)
    squares: Tensor = torch.linalg.svdvals(centred).square()
    return squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny)


def effective_rank(features: Tensor) -> float:
    """exp(entropy) of the covariance spectrum of features [N, C]: the number of directions in use, 1 ... C.

    Roy, Vetterli, "The effective rank" (2007), on squared singular values.
    """
    shares = covariance_spectrum(features)
    shares = shares[shares > 0]
    return float((-(shares * shares.log()).sum()).exp())


def channel_correlation(features: Tensor) -> Tensor:
    """Pearson correlation of the channels of features [N, C]: [C, C] in [-1, 1]; 0 for constant channels."""
    unit = _unit(features.double())
    return unit.T @ unit


def matched_correlation(student: Tensor, teacher: Tensor) -> Tensor:
    """Correlation of the student's channels, mapped to the teacher's, with the teacher's: [N, C_s], [N, C_t] to
    [C_t, C_t].

    Row i is what a linear map reads of teacher channel i out of the student, column j teacher channel j: the matrix
    whose diagonal the channel contrast pulls to 1. The map is fitted, with a little ridge, on every other sample and
    the correlation taken on the rest.
    """
    (fit_s, test_s), (fit_t, test_t) = (_halves(features.double()) for features in (student, teacher))
    gram = fit_s.T @ fit_s
    ridge = _RIDGE * len(fit_s) * torch.eye(len(gram), dtype=gram.dtype)
    mapped = test_s @ torch.linalg.solve(gram + ridge, fit_s.T @ fit_t)
    return _unit(mapped).T @ _unit(test_t)


def _halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """Every other sample, standardised, and the rest likewise by the first half's mean and deviation."""
    fit = features[::2]
    scale = fit.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    return (fit - fit.mean(0)) / scale, (features[1::2] - fit.mean(0)) / scale


def _unit(features: Tensor) -> Tensor:
    """Centred channels of length 1; constant ones are 0."""
    centred = features - features.mean(0)
    norms = centred.norm(dim=0)
    return centred / torch.where(norms > 0, norms, 1.0)


def mean_off_diagonal(correlation: Tensor) -> float:
    """Mean absolute correlation [C, C] between different channels."""
    count = len(correlation)
    return float((correlation.abs().sum() - correlation.diagonal().abs().sum()) / max(count * (count - 1), 1))
