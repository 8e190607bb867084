"""Means of the loss terms of an epoch."""

import json
import math

import pytest
import torch

from dccd_timm.engine.meter import LossMeter
from dccd_timm.errors import UserError

CPU = torch.device("cpu")


def result(loss, kd, **more):
    values = {"loss": torch.tensor(loss), "kd_loss": torch.tensor(kd), "output": torch.zeros(4, 3), **more}
    return values


def test_means_are_those_of_all_scalars_and_nothing_else():
    meter = LossMeter(CPU)
    meter.add(result(1.0, 0.5), 0)
    meter.add(result(2.0, 1.5), 1)
    assert meter.means(0) == {"loss": 1.5, "kd_loss": 1.0}


def test_half_precision_is_summed_in_float32():
    meter = LossMeter(CPU)
    for update in range(3000):  # float16 counts no further than 2048 in steps of one
        meter.add({"loss": torch.tensor(1.0, dtype=torch.float16)}, update)
    assert meter.means(0)["loss"] == 1


def test_a_resumed_meter_gives_the_mean_of_the_whole_epoch():
    whole, first, second = (LossMeter(CPU) for _ in range(3))
    for update in range(5):
        whole.add(result(0.1 * update, 1.0), update)
    for update in range(2):
        first.add(result(0.1 * update, 1.0), update)
    second.load(json.loads(json.dumps(first.state())))
    for update in range(2, 5):
        second.add(result(0.1 * update, 1.0), update)
    assert second.means(0) == whole.means(0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_term_and_its_update_are_named(bad):
    meter = LossMeter(CPU)
    meter.add(result(1.0, 1.0), 6)
    meter.add(result(bad, bad), 7)
    meter.add(result(bad, 1.0), 8)
    with pytest.raises(UserError, match=r"not finite at update 8 \(epoch 3\): kd_loss became .* last/ holds"):
        meter.means(2)
    with pytest.raises(UserError, match="to skip such updates$"):  # the first epoch leaves nothing good
        meter.means(0)


def test_a_bad_gradient_before_a_bad_loss_is_the_cause():
    meter = LossMeter(CPU)
    meter.note_gradients(torch.tensor(False), 3)
    meter.add(result(math.nan, math.nan), 4)
    with pytest.raises(UserError, match="at update 4 .*the gradient became"):
        meter.means(0)


def test_with_skips_a_bad_step_does_not_count():
    meter = LossMeter(CPU, skips=True)
    meter.add(result(1.0, 3.0), 0)
    meter.add(result(math.nan, 5.0), 1)
    assert meter.means(0) == {"loss": 1.0, "kd_loss": 3.0}
