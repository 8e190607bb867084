"""Optimizer, learning rate and schedules."""

import copy
import warnings
from functools import partial

import pytest
import timm
import torch
from timm.task import ClassificationTask

from dccd_timm.engine.optim import (
    Schedule,
    build_optimizer,
    build_schedule,
    change_groups,
    learning_rate,
    mean_learning_rate,
)
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe


def sgd(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)


@pytest.mark.parametrize(
    ("flags", "world", "expected"),
    [
        ("--lr 0.3", 8, 0.3),
        ("--lr-base 0.1 -b 64", 4, 0.1),
        ("--lr-base 0.1 -b 64", 8, 0.2),
        ("--lr-base 0.1 -b 64 --grad-accum-steps 4", 8, 0.8),
        ("--lr-base 0.1 -b 64 --lr-base-size 1024", 4, 0.025),
        ("--lr-base 0.1 -b 64 --opt adamw", 16, 0.2),  # sqrt for adaptive optimizers
        ("--lr-base 0.1 -b 64 --opt adamw --lr-base-scale linear", 16, 0.4),
        ("--lr-base 0.1 -b 64 --dccd-views 4 --kd-model-name resnet18", 4, 0.1),  # images count, not views
    ],
)
def test_the_learning_rate_scales_as_timms(flags, world, expected):
    recipe = load_recipe(flags.split())
    assert learning_rate(recipe, recipe.batch_size * world) == pytest.approx(expected)


def test_the_mean_rate_is_over_groups():
    optimizer = torch.optim.SGD([{"params": [torch.ones(1)], "lr": 1.0}, {"params": [torch.ones(1)], "lr": 3.0}])
    assert mean_learning_rate(optimizer) == 2


def test_layer_decay_and_no_decay_on_norms_and_biases():
    task = ClassificationTask(timm.create_model("test_vit", num_classes=3), device=torch.device("cpu"), verbose=False)
    optimizer = build_optimizer(
        task, load_recipe(["--opt", "adamw", "--lr", "1", "--layer-decay", "0.5", "--weight-decay", "0.1"]), 1
    )
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert max(scales) == 1 and min(scales) < 0.5
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 0 or all(parameter.ndim > 1 for parameter in group["params"])


def test_an_optimizer_that_lacks_its_package_says_so(monkeypatch, caplog):
    """The kernel ended a run on a network of 78,000 parameters without a word."""
    task = ClassificationTask(torch.nn.Linear(2, 2), device=torch.device("cpu"), verbose=False)
    for available in (True, False):
        monkeypatch.setattr(torch.backends.opt_einsum, "is_available", partial(bool, available))
        build_optimizer(task, load_recipe(["--opt", "kron"]), 1)
    assert [line for line in caplog.messages if "kron" in line] == [caplog.messages[-1]]
    assert "pip install opt_einsum" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--opt adamv", "optimizer adamv: .*did you mean adam"),
        ("--opt sgd --opt-kwargs colour=1", "optimizer sgd: .*check --opt and --opt-kwargs"),
    ],
)
def test_a_wrong_optimizer_is_one_line(flags, message):
    task = ClassificationTask(timm.create_model("test_resnet"), device=torch.device("cpu"), verbose=False)
    with pytest.raises(UserError, match=message):
        build_optimizer(task, load_recipe(flags.split()), 1)


def test_a_wrong_schedule_is_one_line():
    with pytest.raises(UserError, match="scheduler cosinus: Unknown scheduler .*; there are cosine, tanh"):
        build_schedule(sgd(), load_recipe(["--sched", "cosinus"]), 10)


def test_no_schedule_keeps_the_rate():
    optimizer = sgd(0.5)
    schedule = build_schedule(optimizer, load_recipe(["--sched", "none", "--epochs", "7"]), 10)
    assert schedule == Schedule(None, 7) and schedule.state() == {}
    schedule.resume(3, 30)
    schedule.end_update(31)
    schedule.end_epoch(3, 1.0)
    assert mean_learning_rate(optimizer) == 0.5


@pytest.mark.parametrize(
    "flags", ["--sched step --decay-epochs 2 --decay-rate 0.1", "--sched cosine --sched-on-updates"]
)
def test_a_resumed_schedule_has_the_rates_of_one_that_ran_through(flags):
    recipe = load_recipe([*flags.split(), *["--lr", "1", "--epochs", "6", "--warmup-epochs", "1"]])

    def rates(first_epoch):
        optimizer = sgd()
        schedule = build_schedule(optimizer, recipe, 3)
        schedule.resume(first_epoch, 3 * first_epoch)
        for epoch in range(first_epoch, 6):
            for update in range(3 * epoch, 3 * epoch + 3):
                yield update, optimizer.param_groups[0]["lr"]
                schedule.end_update(update + 1)
            schedule.end_epoch(epoch, None)

    whole = dict(rates(0))
    assert len(set(whole.values())) > 3
    for first_epoch in (1, 4):
        assert all(whole[update] == rate for update, rate in rates(first_epoch))


def test_plateau_continues_where_it_stopped():
    recipe = load_recipe(["--sched", "plateau", "--patience-epochs", "1", "--warmup-epochs", "0", "--lr", "1"])
    metrics = [1.0, 0.9, 0.8, 0.9, 0.7, 0.6, 0.6, 0.5]

    def fresh():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
            return optimizer, build_schedule(optimizer, recipe, 1)

    optimizer, schedule = fresh()
    rates = []
    for epoch, metric in enumerate(metrics):
        if epoch == 4:  # killed here
            state, weights = schedule.state(), copy.deepcopy(optimizer.state_dict())
        schedule.end_epoch(epoch, metric)
        rates.append(optimizer.param_groups[0]["lr"])
    assert len(set(rates)) > 2
    optimizer, schedule = fresh()
    optimizer.load_state_dict(weights)
    schedule.load_state(state)
    for epoch, metric in list(enumerate(metrics))[4:]:
        schedule.end_epoch(epoch, metric)
        assert optimizer.param_groups[0]["lr"] == rates[epoch]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("flags", ["", "--warmup-epochs 2"])
@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_noise_of_a_plateau_is_put_on_its_own_rates_again(factor, flags):
    """Not on the rate with noise of the saved optimizer, and a new --lr is not lost in it."""
    words = ["--sched", "plateau", "--patience-epochs", "1", "--warmup-epochs", "0", "--lr-noise", "0.1", "0.9"]
    recipe = load_recipe([*words, "--lr", "1", "--epochs", "9", *flags.split()])
    metrics = [60.0, 61.0, 61.0, 61.0, 60.0, 60.0, 62.0, 62.0]

    def new(rate):
        optimizer = sgd()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = rate
        return optimizer, build_schedule(optimizer, recipe, 1)

    optimizer, schedule = new(1.0)
    saved, rates = [], []
    for epoch, metric in enumerate(metrics):
        schedule.end_epoch(epoch, metric)
        saved.append((copy.deepcopy(optimizer.state_dict()), schedule.state()))
        rates.append(mean_learning_rate(optimizer))
    assert len(set(rates)) > 5
    for first in (1, 3, 5):
        optimizer, schedule = new(factor)
        optimizer.load_state_dict(saved[first][0])
        schedule.load_state(saved[first][1])
        change_groups(optimizer, [{"lr": 1.0}], [{"lr": factor}], scheduled=True)
        for _ in range(2):  # restore and the engine do
            schedule.resume(first + 1, first + 1)
        found = [mean_learning_rate(optimizer)]
        for epoch in range(first + 1, len(metrics)):
            schedule.end_epoch(epoch, metrics[epoch])
            found.append(mean_learning_rate(optimizer))
        assert found == pytest.approx([factor * rate for rate in rates[first:]])


@pytest.mark.parametrize(
    ("flags", "mode"), [("--val-split=", "min"), ("--eval-metric loss", "min"), ("--eval-metric top1", "max")]
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plateau_is_that_of_torch_on_the_metric_and_without_validation_on_the_training_loss(flags, mode):
    metrics = [2.4, 2.3, 2.2, 2.3, 2.3, 2.1, 2.0, 2.1, 2.1, 1.9, 1.8]
    common = ["--sched", "plateau", "--patience-epochs", "1", "--warmup-epochs", "0", "--decay-rate", "0.1"]
    optimizer, other = sgd(), sgd()
    schedule = build_schedule(optimizer, load_recipe([*common, *flags.split(), "--lr", "1"]), 1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(other, mode, factor=0.1, patience=1)
    rates = []
    for epoch, metric in enumerate(metrics):
        schedule.end_epoch(epoch, metric)
        reference.step(metric)
        rates.append((mean_learning_rate(optimizer), mean_learning_rate(other)))
    assert [rate for rate, _ in rates] == [rate for _, rate in rates]
    assert rates[1][0] == 1 and rates[-1][0] < 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_plateau_forgets_a_best_value_that_was_a_maximum():
    common = ["--sched", "plateau", "--patience-epochs", "0", "--warmup-epochs", "0"]
    accuracy, loss = (build_schedule(sgd(), load_recipe([*common, *f]), 1) for f in ((), ("--val-split=",)))
    accuracy.end_epoch(0, 60.0)
    loss.load_state(accuracy.state())
    assert loss.scheduler.lr_scheduler.mode == "min" and loss.scheduler.lr_scheduler.best == float("inf")


@pytest.mark.parametrize("sched", ["none", "cosine"])
def test_layer_decay_scales_the_rates_with_and_without_a_schedule(sched):
    task = ClassificationTask(timm.create_model("test_vit", num_classes=3), device=torch.device("cpu"), verbose=False)
    recipe = load_recipe(["--lr", "0.8", "--layer-decay", "0.5", "--sched", sched, "--warmup-epochs", "0"])
    optimizer = build_optimizer(task, recipe, 1)
    schedule = build_schedule(optimizer, recipe, 10)
    for update in range(2):  # a rate is scaled once
        schedule.end_update(update + 1)
        rates = {round(group["lr"] / group["lr_scale"], 9) for group in optimizer.param_groups}
        assert rates == {0.8} and len({group["lr"] for group in optimizer.param_groups}) > 3
