"""Products of channels: the values and gradients that autograd gives for the plain formulas."""

import pytest
import torch

from dccd_timm.losses import products


def columns(seed, count=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, count, generator=generator, dtype=torch.float64)


def plain_products(first, second):
    return first.square().sum(0), first.T @ second


def plain_own_products(first, second):
    return (first * second).sum(0), first.T @ first


@pytest.mark.parametrize(
    ("ours", "plain"),
    [(products.products, plain_products), (products.own_products, plain_own_products)],
    ids=["products", "own products"],
)
def test_values_and_gradients_are_those_of_the_plain_formulas(ours, plain):
    first, second = columns(0).requires_grad_(), columns(1)
    weights = torch.randn(5, generator=torch.Generator().manual_seed(2), dtype=torch.float64), columns(3)[:5]
    results = []
    for function in (ours, plain):
        parts = function(first, second)
        total = sum((weight * part).sum() for weight, part in zip(weights, parts, strict=True))
        results.append((*(part.detach() for part in parts), *torch.autograd.grad(total, first)))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)


def test_products_of_different_widths():
    first, second = columns(0, 4), columns(1, 7)
    assert products.products(first, second)[1].shape == (4, 7)


def test_without_a_process_group_there_is_one_rank():
    assert products.num_ranks() == 1


def test_the_gradient_of_a_sum_over_ranks_is_multiplied_by_their_number(monkeypatch):
    monkeypatch.setattr(products.dist, "all_reduce", lambda value: value.mul_(3))
    monkeypatch.setattr(products, "num_ranks", lambda: 3)
    value = columns(0).requires_grad_()
    total = products.sum_over_ranks(value)
    assert torch.equal(total, 3 * value)
    total.sum().backward()
    assert torch.equal(value.grad, torch.full_like(value, 3.0))
