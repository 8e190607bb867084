"""BatchNorm's running statistics over ranks, and under a repeated forward."""

from types import SimpleNamespace

import pytest
import timm
import torch
from accelerate import Accelerator
from timm.task import ClassificationTask
from torch import nn

from dccd_timm.batch import Batch
from dccd_timm.engine import statistics
from dccd_timm.engine.statistics import running_statistics, share_statistics, unmoved_statistics
from dccd_timm.engine.step import training_step
from dccd_timm.recipe import load_recipe


def test_only_what_a_training_forward_changes_is_a_statistic():
    model = timm.create_model("test_vit", num_classes=3)
    assert not running_statistics(model)
    model = timm.create_model("test_resnet", num_classes=3).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(torch.randn(2, 3, 32, 32))
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == set(running_statistics(model)) and len(changed) % 3 == 0


@pytest.mark.parametrize("mean", [True, False])
def test_all_ranks_get_the_mean_or_what_rank_0_has(mean, monkeypatch):
    """The other rank's statistics are all 5, rank 0's are 1."""
    norm = nn.BatchNorm1d(2).requires_grad_(False)
    nn.init.ones_(norm.running_mean)
    reduced = SimpleNamespace(device=torch.device("cpu"), reduce=lambda own, how: {"mean": (own + 5) / 2}[how])
    monkeypatch.setattr(statistics, "broadcast", lambda own: own * 0 + 1)
    share_statistics(norm, reduced, mean)
    assert norm.running_mean.tolist() == ([3.0, 3.0] if mean else [1.0, 1.0])
    assert norm.running_var.tolist() == norm.running_mean.tolist() and norm.num_batches_tracked == 0


def test_a_block_moves_no_statistics():
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(4, 2))
    before = {name: statistic.clone() for name, statistic in running_statistics(norm).items()}
    with unmoved_statistics(norm):
        norm(torch.randn(4, 2))
    assert all(torch.equal(statistic, before[name]) for name, statistic in running_statistics(norm).items())


def step(*flags):
    """State of a network after two steps on the same batches."""
    recipe = load_recipe(["--lr", "0.1", "--device", "cpu", *flags])
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    model.set_grad_checkpointing(recipe.grad_checkpointing)
    task = ClassificationTask(model, device=torch.device("cpu"), verbose=False).train()
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    task.trainable_module, optimizer = accelerator.prepare(task.trainable_module, optimizer)
    for _ in range(2):
        batch = Batch(torch.randn(4, 1, 3, 32, 32), torch.arange(4) % 3)
        training_step(task, batch, optimizer, recipe, accelerator, lambda: True)
    return model.state_dict()


def test_checkpointing_changes_neither_weights_nor_statistics(fresh_accelerator):
    plain, checkpointed = step(), step("--grad-checkpointing")
    for name, tensor in plain.items():
        torch.testing.assert_close(checkpointed[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
    assert checkpointed["bn1.num_batches_tracked"] == 2
