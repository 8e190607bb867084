"""One training step against the same step in plain PyTorch."""

import copy

import pytest
import torch
from torch.nn import functional as F

from dccd_timm.batch import Batch, fold_views
from dccd_timm.engine.step import training_step
from tests.engine.fakes import batches, setup


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerator):
    pass


def weights(task):
    return [p.detach().clone() for p in task.trainable_module.parameters()]


def expected_after(task, batch, lr=0.1, clip=None):
    """Weights after one step of SGD on all views of a batch."""
    module = copy.deepcopy(task.trainable_module)
    images, target = fold_views(batch.views, batch.target)
    F.cross_entropy(module(images), target).backward()
    if clip:
        torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
    return [p.detach() - lr * p.grad for p in module.parameters()]


@pytest.mark.parametrize(("flags", "clip"), [((), None), (("--clip-grad", 0.01), 0.01), (("--channels-last",), None)])
def test_it_is_a_step_of_sgd(flags, clip):
    recipe, task, optimizer, accelerator = setup("--weight-decay", 0, "--smoothing", 0, *flags)
    (batch,) = batches(1)
    expected = expected_after(task, batch, clip=clip)
    result, changed = training_step(task, batch, optimizer, recipe, accelerator, lambda: True)
    assert changed and result["loss"].isfinite()
    torch.testing.assert_close(weights(task), expected)


def test_two_accumulated_batches_are_one_of_twice_the_size():
    recipe, task, optimizer, accelerator = setup("--weight-decay", 0, "--smoothing", 0, "--grad-accum-steps", 2)
    first, second = batches(2)
    before = weights(task)
    together = Batch(torch.cat([first.views, second.views]), torch.cat([first.target, second.target]))
    expected = expected_after(task, together)
    assert not training_step(task, first, optimizer, recipe, accelerator, lambda: True)[1]
    assert all(torch.equal(a, b) for a, b in zip(before, weights(task), strict=True))
    assert training_step(task, second, optimizer, recipe, accelerator, lambda: True)[1]
    torch.testing.assert_close(weights(task), expected)


def test_an_update_that_may_not_be_made_changes_nothing_and_leaves_no_gradient():
    recipe, task, optimizer, accelerator = setup()
    before = weights(task)
    assert not training_step(task, batches(1)[0], optimizer, recipe, accelerator, lambda: False)[1]
    assert all(torch.equal(a, b) for a, b in zip(before, weights(task), strict=True))
    assert all(p.grad is None or not p.grad.any() for p in task.trainable_module.parameters())
