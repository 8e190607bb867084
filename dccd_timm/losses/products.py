"""Products of channels and sums over ranks, with the gradients that the channel contrast needs.

Axes: M activations of a channel on this rank, C channels.
"""

from typing import cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable


def num_ranks() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sum over ranks, as a new tensor without gradient."""
    value = value.contiguous().clone()
    dist.all_reduce(value)
    return value


def sum_over_ranks(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sum over ranks that is differentiated: its backward multiplies by the number of ranks, which DDP's mean undoes.

    The gradient of a sum over ranks is the sum of the ranks' gradients. Every rank computes the same loss from the same
    sums, so those are all equal and need not be sent. That holds for one reduction, not for one after another.
    """
    total: Tensor = _SumOverRanks.apply(value)
    return total


def products(
    first: Float[Tensor, "M C"], second: Float[Tensor, "M D"]
) -> tuple[Float[Tensor, "C"], Float[Tensor, "C D"]]:
    """Squared norms of the columns of ``first`` and their products with those of ``second``, which gets no gradient."""
    norms: Tensor
    between: Tensor
    norms, between = _Products.apply(first, second)
    return norms, between


def own_products(
    first: Float[Tensor, "M C"], second: Float[Tensor, "M C"]
) -> tuple[Float[Tensor, "C"], Float[Tensor, "C C"]]:
    """Products of matching columns of both, and of the columns of ``first`` with each other; none for ``second``."""
    matching: Tensor
    among: Tensor
    matching, among = _OwnProducts.apply(first, second)
    return matching, among


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        return all_reduce(value)

    @staticmethod
    def backward(ctx: BackwardCFunction, *grads: Tensor) -> Tensor:
        return grads[0] * num_ranks()


class _Products(torch.autograd.Function):
    """A function of its own because autograd would make three more passes over [M, C] for the norms."""

    @staticmethod
    def forward(ctx: FunctionCtx, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        return first.square().sum(0), first.T @ second

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, *grads: Tensor) -> tuple[Tensor, None]:
        first, second = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        return torch.addcmul(second @ grads[1].T, first, 2 * grads[0]), None


class _OwnProducts(torch.autograd.Function):
    """A function of its own because autograd would multiply [M, C] x [C, C] for each side of a symmetric product."""

    @staticmethod
    def forward(ctx: FunctionCtx, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(first, second)
        return (first * second).sum(0), first.T @ first

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, *grads: Tensor) -> tuple[Tensor, None]:
        first, second = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        return torch.addcmul(first @ (grads[1] + grads[1].T), second, grads[0]), None
