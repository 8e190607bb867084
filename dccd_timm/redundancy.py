"""How redundant a network's channels are: effective rank and channel correlation."""

import torch
from torch import Tensor


def covariance_spectrum(features: Tensor) -> Tensor:
    """Shares of variance along the principal directions of features [N, C], descending, summing to 1; float64 [C]."""
    centred = features.double() - features.double().mean(0)
    squares = torch.linalg.svdvals(centred).square()
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
    centred = features.double() - features.double().mean(0)
    norms = centred.norm(dim=0)
    unit = centred / torch.where(norms > 0, norms, 1.0)
    return unit.T @ unit


def mean_off_diagonal(correlation: Tensor) -> float:
    """Mean absolute correlation [C, C] between different channels."""
    count = len(correlation)
    return float((correlation.abs().sum() - correlation.diagonal().abs().sum()) / max(count * (count - 1), 1))
