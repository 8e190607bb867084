"""Where a network is not made, what is drawn afterwards is as if it had been."""

import pytest
import timm
import torch

from dccd_timm.cache import draws
from dccd_timm.cache.draws import count_draws, skip_draws


@pytest.mark.parametrize(
    "make",
    [lambda: None, lambda: torch.rand(1001), lambda: torch.randn(33), lambda: timm.create_model("test_vit")],
    ids=["nothing", "uniform", "normal", "network"],
)
def test_draws_are_counted_and_left_out(make, monkeypatch):
    monkeypatch.setattr(draws, "_CHUNK", 700)
    torch.manual_seed(3)
    torch.rand(5)
    before = torch.get_rng_state()
    make()
    after = torch.get_rng_state()
    expected = torch.nn.Linear(7, 7).weight
    count = count_draws(before, after)
    torch.set_rng_state(before)
    skip_draws(count)
    assert torch.equal(torch.nn.Linear(7, 7).weight, expected)


def test_a_state_that_does_not_follow_has_no_number(monkeypatch):
    monkeypatch.setattr(draws, "_CHUNK", 700)
    states = [torch.Generator().manual_seed(seed).get_state() for seed in (1, 2)]
    assert count_draws(*states, limit=5000) is None
