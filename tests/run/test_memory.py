"""Out of memory: the batch that would fit, with the accumulation that keeps the update."""

import re

import pytest
import torch

from dccd_timm.errors import UserError
from dccd_timm.run import memory
from dccd_timm.run.memory import naming_what_fits
from tests.run.test_pieces import build_for


def fails(error):
    yield "an epoch"
    raise error


def run(small, error, *flags):
    recipe, training, accelerator = build_for([*small, *flags])
    epochs = naming_what_fits(fails(error), recipe, training, accelerator)
    assert next(epochs) == "an epoch"
    next(epochs)


def no_memory():
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("room", "batch", "accumulated"),
    [(None, 8, 2), (3 * 2**20, 4, 4), (2**40, 8, 2)],
    ids=["unknown", "little", "enough for all"],
)
def test_it_names_a_batch_that_makes_the_same_update(room, batch, accumulated, small, fresh_accelerator, monkeypatch):
    monkeypatch.setattr(memory, "_room", lambda device: room)
    with pytest.raises(UserError) as caught:
        run(small, no_memory())
    line = str(caught.value)
    assert f"--batch-size {batch} --grad-accum-steps {accumulated} takes" in line
    assert f"the contrast and BatchNorm then see {batch} images at a time" in line
    assert "out of memory on the CPU with 16 images x 2 views per rank" in line and "\n" not in line
    needed, taken = re.findall(r"takes ([\d.]+) MiB", line)
    assert float(needed) > float(taken) and ("that it can have" in line) == (room is not None)


def test_nothing_but_batch_norm_sees_it_with_logits_alone(small, fresh_accelerator):
    with pytest.raises(UserError, match="though BatchNorm then sees 8 images at a time"):
        run(small, torch.OutOfMemoryError("CUDA out of memory"), "--kd-distill-type", "logit", "--dccd-views", 2)


def test_a_step_that_cannot_be_planned_has_the_usual_line(small, fresh_accelerator, monkeypatch):
    def broken(*given):
        raise NotImplementedError

    monkeypatch.setattr(memory, "step_memory", broken)
    with pytest.raises(UserError, match="lower --batch-size .with --grad-accum-steps 2 half of it"):
        run(small, no_memory())


def test_another_error_is_not_touched(small, fresh_accelerator):
    with pytest.raises(KeyError, match="name"):
        run(small, KeyError("name"))
