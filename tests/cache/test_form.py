"""Answers as they are kept: exact in float32, rounded in float16, and with the mass of what is left out."""

import json
from dataclasses import asdict

import pytest
import torch

from dccd_timm.cache.form import ROW_BYTES, SKETCH_BYTES, Form
from dccd_timm.errors import UserError

CPU = torch.device("cpu")


def answers(classes=20, views=2, images=3, scale=3.0):
    torch.manual_seed(0)
    return scale * torch.randn(views * images, classes), [torch.randn(views * images, 5, 4, 4)]


def form(logits="float32", maps=((5, 4, 4),), temperature=0.0, classes=20):
    return Form(logits, temperature, classes, 2, (3,) if maps else (), maps)


def kept(shape, logits, maps):
    return shape.unpack(shape.pack(logits, maps), CPU)


def test_float32_is_exact_and_rows_are_images():
    logits, maps = answers()
    rows = form().pack(logits, maps)
    assert rows["logits"].shape == (3, 2, 20) and rows["map0"].shape == (3, 2, 5, 4, 4)
    assert torch.equal(rows["logits"][1, 0], logits[1]) and torch.equal(rows["logits"][1, 1], logits[4])
    back, (grid,) = form().unpack(rows, CPU)
    assert torch.equal(back, logits) and torch.equal(grid, maps[0])


def test_float16_differs_by_rounding():
    logits, maps = answers()
    back, (grid,) = kept(form("float16"), logits, maps)
    assert back.dtype == torch.float32 and 0 < (back - logits).abs().max() <= 2**-11 * logits.abs().max()
    assert (grid - maps[0]).abs().max() <= 2**-11 * maps[0].abs().max()
    with pytest.raises(UserError, match="larger than float16 holds: set --kd-cache-logits float32"):
        form("float16").pack(1e5 * logits, maps)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_highest_logits_keep_the_mass_of_the_rest(temperature):
    logits, _ = answers(classes=1000)
    back, maps = kept(form("10", (), temperature, 1000), logits, [])
    assert maps == []
    true, found = ((z / temperature).softmax(1) for z in (logits, back))
    highest = logits.topk(10).indices
    assert torch.equal(back.topk(10).indices.sort().values, highest.sort().values)
    rounding = 2**-11 * logits.max().item()  # of a logit in float16, which is a share of its probability
    torch.testing.assert_close(found.gather(1, highest), true.gather(1, highest), rtol=2 * rounding, atol=0)
    rest = [1 - shares.gather(1, highest).sum(1) for shares in (found, true)]
    torch.testing.assert_close(*rest, rtol=2 * rounding, atol=0)


@pytest.mark.parametrize("logits", ["float16", "float32", "7"])
@pytest.mark.parametrize("maps", [(), ((5, 4, 4),)])
def test_bytes_and_json(logits, maps):
    shape = form(logits, maps, temperature=2.0)
    rows = shape.pack(answers()[0], answers()[1][: len(maps)])
    assert 3 * (shape.image_bytes - ROW_BYTES - 2 * SKETCH_BYTES) == sum(part.nbytes for part in rows.values())
    assert Form.from_json(json.dumps(asdict(shape))) == shape
