"""Updates whose gradients are not finite: skipped without a trace, or the end of the run."""

import math
from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.task import ClassificationTask

from dccd_timm.batch import Batch
from dccd_timm.engine.loop import Start, train
from dccd_timm.engine.optim import Schedule, build_optimizer
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe


class Loader:
    """Batches from a list; ``prepare`` and ``skips`` as the engine wants them."""

    prepare, skips = SimpleNamespace(set_epoch=lambda epoch: None), SimpleNamespace(count=0)

    def __init__(self, batches):
        self.batches, self.batches_per_epoch = batches, len(batches)

    def __iter__(self):
        return iter(self.batches)


def batches(count, bad=()):
    draw = torch.Generator().manual_seed(0)
    images = [torch.randn(4, 1, 3, 32, 32, generator=draw) for _ in range(count)]
    for number in bad:
        images[number][0, 0, 0, 0, 0] = math.nan
    return [Batch(views, torch.tensor([0, 1, 2, 0])) for views in images]


def trained(all_batches, *flags):
    """State dict after one epoch over these batches, with its progress."""
    torch.manual_seed(0)
    recipe = load_recipe(["--model", "resnet10t", "--opt", "sgd", "--lr", "0.01", "--device", "cpu", *flags])
    task = ClassificationTask(timm.create_model("resnet10t", num_classes=3), device=torch.device("cpu"), verbose=False)
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(build_optimizer(task, recipe, 1))
    run = train(task, Loader(all_batches), optimizer, Schedule(None, 1), recipe, accelerator, Start(), lambda: False)
    progress = next(run)
    return task.get_trainable_module().state_dict(), progress


def test_a_skipped_update_is_as_if_its_batch_had_not_been():
    """Weights, momentum, BatchNorm statistics and mean loss: bitwise those of a run without the bad batches."""
    good = [b for n, b in enumerate(batches(6)) if n not in (2, 3)]
    expected, whole = trained(good)
    got, progress = trained(batches(6, bad=(2, 3)), "--nonfinite", "skip")
    names = [name for name in expected if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(expected[name], got[name]) for name in names)
    assert progress.losses == pytest.approx(whole.losses)


def test_a_loss_that_stays_bad_stops_a_run_that_skips():
    with pytest.raises(UserError, match="10 updates in a row, up to 11, had gradients that are not finite"):
        trained(batches(20, bad=range(1, 20)), "--nonfinite", "skip")


def test_a_gradient_that_is_not_finite_stops_before_anything_is_saved():
    """The loss of that batch is still fine: only the next one would tell."""

    class Root(torch.nn.Module):
        def forward(self, logits, target):
            return (logits.square().sum() - logits.square().sum().detach()).sqrt() + 1  # its slope at 0 is infinite

    task = ClassificationTask(timm.create_model("resnet10t", num_classes=3), Root(), device=torch.device("cpu"))
    recipe = load_recipe(["--model", "resnet10t", "--device", "cpu"])
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare_optimizer(build_optimizer(task, recipe, 1))
    with pytest.raises(UserError, match="not finite at update 1 .*the gradient became"):
        next(train(task, Loader(batches(1)), optimizer, Schedule(None, 1), recipe, accelerator, Start(), lambda: False))
