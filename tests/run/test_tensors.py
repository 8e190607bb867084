"""Tensors of a state: weights under plain names, and what optimizers keep outside their state."""

import pytest
import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from torch import nn

from dccd_timm.run.tensors import (
    load_optimizer_extras,
    load_weights,
    save_optimizer_extras,
    save_weights,
    scaler_left_out,
)
from tests.engine.fakes import Classifier


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerator):
    pass


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(Classifier(), nn.BatchNorm1d(3))


def compiled(module):
    return torch.compile(module, backend="eager")


def inside(module):
    module[0] = compiled(module[0])
    return module


def plain(module):
    return module


@pytest.mark.parametrize("saved_as", [compiled, inside, plain])
@pytest.mark.parametrize("loaded_as", [compiled, inside, plain])
def test_weights_do_not_depend_on_compilation(saved_as, loaded_as, tmp_path):
    first, second = network(), network(1)
    expected = {name: value.clone() for name, value in first.state_dict().items()}
    save_weights(saved_as(first), tmp_path / "weights")
    load_weights(loaded_as(second), tmp_path / "weights")
    found = {name.replace("_orig_mod.", ""): value for name, value in second.state_dict().items()}
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_networks_weights_are_named_in_one_line(tmp_path):
    save_weights(network(), tmp_path / "weights")
    with pytest.raises(ValueError, match="weights are another network's, such as weight") as error:
        load_weights(nn.Linear(4, 2), tmp_path / "weights")
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def steps(optimizer, module, count):
    draw = torch.Generator().manual_seed(7)
    for _ in range(count):
        loss = module(torch.randn(8, 3, 4, 4, generator=draw)).square().sum()
        optimizer.zero_grad()
        loss.backward(create_graph=getattr(optimizer.optimizer, "is_second_order", False))
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("adahessian", {}),
        ("adahessian", {"update_each": 2}),
        ("adahessian", {"n_samples": 2}),
        ("lookahead_adahessian", {}),
        ("kron", {}),
        ("kron", {"deterministic": True}),
        ("lookahead_kron", {"stochastic_weight_decay": True, "weight_decay": 0.1}),
    ],
)
@pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")
def test_an_optimizer_that_draws_continues_with_the_numbers_that_it_would_have_drawn(
    name, arguments, tmp_path, monkeypatch
):
    monkeypatch.setattr("timm.optim.kron.has_dynamo", False)  # it would compile for a minute

    def new():
        module = Classifier()
        with torch.no_grad():
            module.fc.weight.fill_(0.1), module.fc.bias.fill_(0.2)
        accelerator = Accelerator(cpu=True)
        return module, accelerator.prepare(create_optimizer_v2(module, opt=name, lr=0.1, **arguments))

    module, optimizer = new()
    steps(optimizer, module, 3)
    save_optimizer_extras(optimizer, tmp_path / "extras")
    weights, state = {k: v.clone() for k, v in module.state_dict().items()}, optimizer.state_dict()
    state, drawn = torch.load(_saved(state, tmp_path)), torch.get_rng_state()
    steps(optimizer, module, 2)
    again, resumed = new()
    torch.set_rng_state(drawn)  # which is part of a saved state
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    load_optimizer_extras(resumed, tmp_path / "extras")
    steps(resumed, again, 2)
    assert torch.equal(again.fc.weight, module.fc.weight) and torch.equal(again.fc.bias, module.fc.bias)


def _saved(state, folder):
    torch.save(state, folder / "optimizer")
    return folder / "optimizer"


def test_most_optimizers_keep_nothing_outside_their_state(tmp_path):
    module = Classifier()
    optimizer = Accelerator(cpu=True).prepare(create_optimizer_v2(module, opt="adamw"))
    save_optimizer_extras(optimizer, tmp_path / "extras")
    assert not (tmp_path / "extras").exists()
    load_optimizer_extras(optimizer, tmp_path / "extras")


def test_a_scaler_that_was_not_saved_is_not_asked_for():
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = "scaler"
    with scaler_left_out(accelerator, unless=False):
        assert accelerator.scaler is None
    with scaler_left_out(accelerator, unless=True):
        assert accelerator.scaler == "scaler"
    assert accelerator.scaler == "scaler"
