"""What timm's loop asks of a task: checkpoints, compilation, parameters to clip."""

import pytest
import timm
import torch
from torch import nn

from dccd_timm import DCCDTask
from dccd_timm.task.contract import unwrapped
from tests.task.small import batch, resnet


def test_checkpoint_state_is_the_plain_student_and_comes_back():
    def build(seed):
        return DCCDTask(resnet(seed), resnet(9, (16, 24, 32)), nn.CrossEntropyLoss())

    task, other = build(0), build(5)
    task.setup_ema(decay=0.5)
    task.train()(*batch())["loss"].backward()
    torch.optim.SGD(task.trainable_module.parameters(), lr=0.1).step()
    task.update_ema(step=1)
    state = task.get_checkpoint_state() | task.get_checkpoint_state(ema=True)
    assert state["state_dict"].keys() == resnet().state_dict().keys()
    assert set(state["task_state"]) == {"channel_maps"}
    resnet().load_state_dict(state["state_dict_ema"])
    other.load_checkpoint_state(state["state_dict"], state["task_state"])
    for a, b in zip(task.trainable_module.parameters(), other.trainable_module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_compiled_task_gives_the_same_loss():
    task = DCCDTask(resnet(0), resnet(1), nn.CrossEntropyLoss()).train()
    for module in task.trainable_module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    views, target = batch()
    wanted = task(views, target)["loss"].item()
    eval_model = task.compile(backend="eager")
    assert task(views, target)["loss"].item() == pytest.approx(wanted, rel=1e-5)
    assert task.get_eval_model() is eval_model
    assert task.get_checkpoint_state()["state_dict"].keys() == resnet().state_dict().keys()


def test_clip_parameters_leave_out_the_classifier():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=3)
    task = DCCDTask(vit, resnet(1), nn.CrossEntropyLoss(), input_size=(3, 64, 64))
    everything, without_head = task.get_clip_parameters(), task.get_clip_parameters(exclude_head=True)
    left_out = {id(p) for p in everything} - {id(p) for p in without_head}
    assert left_out == {id(p) for p in vit.get_classifier().parameters()}


def test_without_an_average_there_is_no_state_of_it():
    task = DCCDTask(resnet(0), resnet(9, (16, 24, 32)), nn.CrossEntropyLoss())
    assert task.get_task_state(ema=True) == {}
    task.load_task_state(None, ema=True)
    with pytest.raises(RuntimeError, match="setup_ema"):
        task.load_task_state(task.get_task_state(), ema=True)


def test_wrappers_come_off_in_any_order():
    model = nn.Linear(2, 2)
    wrapped = nn.Sequential()
    wrapped.module = torch.compile(model, backend="eager")
    assert unwrapped(wrapped) is model
    assert unwrapped(model) is model
