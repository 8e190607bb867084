"""Bytes by part, of real and of fake tensors."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dccd_timm.plan.ledger import ACTIVATIONS, Ledger

KIB = 1024


def kib(count):
    return torch.empty(count, KIB, dtype=torch.uint8)


@pytest.mark.parametrize("fake", [False, True])
def test_the_peak_is_that_of_what_lives_together(fake):
    with FakeTensorMode() if fake else Ledger(), Ledger() as ledger:
        kept = kib(1)
        ledger.assign("inputs", [kept])
        first, second = kib(2), kib(4)
        view = first.view(-1)[:5]  # shares its memory
        del first
        assert ledger.parts == {"inputs": KIB, ACTIVATIONS: 6 * KIB}
        del second, view
        assert ledger.parts[ACTIVATIONS] == 0
        third = kib(3)
    assert ledger.peak == {"inputs": KIB, ACTIVATIONS: 6 * KIB} and len(third) == 3


def test_what_autograd_keeps_counts_until_the_backward():
    with Ledger() as ledger:
        weight = torch.ones(KIB, requires_grad=True)
        loss = (weight.exp() * 2).sum()
        assert ledger.parts[ACTIVATIONS] == 2 * 4 * KIB + 4  # the weight, its exponential and the sum
        loss.backward()
        assert ledger.parts[ACTIVATIONS] == 3 * 4 * KIB + 4 - 4 * KIB + 0 * len(str(loss))


def test_a_part_aside_does_not_decide_where_the_peak_is():
    with Ledger(aside="gradients") as ledger:
        one = kib(4)
        ledger.assign("gradients", [one])
        two = kib(1)
        del two
        ledger.forget_peak()
        three = kib(2)
    assert ledger.peak == {"gradients": 4 * KIB, ACTIVATIONS: 2 * KIB} and len(three) == 2


def test_a_value_that_decides_is_two_or_one():
    with FakeTensorMode(), Ledger():
        assert torch.zeros(3).sum().item() == 2.0
        assert bool((torch.zeros(3) == 1).all()) and int(torch.zeros(1, dtype=torch.long)) == 1
