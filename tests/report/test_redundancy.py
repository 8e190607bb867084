"""Redundancy figures on features whose answer is known."""

import numpy as np
import pytest
import torch

from dccd_timm.report.redundancy import channel_correlation, effective_rank, mean_off_diagonal


def test_effective_rank_counts_equal_directions():
    basis = torch.linalg.qr(torch.randn(100, 8, dtype=torch.float64) - 0.0).Q
    features = (basis - basis.mean(0))[:, :5] @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    orthogonal = torch.linalg.qr(features).Q
    assert effective_rank(orthogonal) == pytest.approx(5, rel=1e-6)
    assert effective_rank(torch.cat([orthogonal, orthogonal], dim=1)) == pytest.approx(5, rel=1e-6)
    assert effective_rank(torch.ones(10, 3)) == pytest.approx(1)


def test_correlation_is_numpys():
    features = np.random.default_rng(0).normal(3, 2, (50, 6))
    ours = channel_correlation(torch.tensor(features))
    np.testing.assert_allclose(ours, np.corrcoef(features.T), atol=1e-12)
    assert mean_off_diagonal(ours) == pytest.approx(np.abs(np.corrcoef(features.T))[~np.eye(6, dtype=bool)].mean())
    assert (channel_correlation(torch.tensor([[1.0, 2.0], [1.0, 3.0]]))[0] == 0).all()
