"""Ghosts: shapes without numbers, and what becomes of the task that they are copies of."""

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor

from dccd_timm import DCCDTask
from dccd_timm.plan.ghost import alone, ghost_of
from tests.task.small import resnet


def task():
    made = DCCDTask(resnet(), resnet(1, channels=(16, 24, 32)), input_size=(3, 64, 64), verbose=False)
    made.setup_ema()
    return made


def test_all_its_tensors_are_fake_and_the_task_stays_as_it_is():
    own = task()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    ghost, _ = ghost_of(own, lower_precision=False)
    tensors = [*ghost.parameters(), *ghost.buffers()]
    assert all(isinstance(tensor, FakeTensor) for tensor in tensors)
    assert [t.shape for t in tensors] == [t.shape for t in (*own.parameters(), *own.buffers())]
    assert [p.requires_grad for p in ghost.parameters()] == [p.requires_grad for p in own.parameters()]
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_memory_layout_and_tied_weights_are_kept():
    own = task().to(memory_format=torch.channels_last)
    student = own.trainable_module.student
    student.stem.again = student.stem.conv
    ghost = ghost_of(own, lower_precision=False)[0].trainable_module.student
    assert ghost.stem.again is ghost.stem.conv
    assert ghost.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_lies_under_wrappers_is_copied():
    own = task()
    own.trainable_module = torch.compile(own.trainable_module, backend="eager")
    ghost, mode = ghost_of(own, lower_precision=True)
    with mode, torch.autocast("cpu", torch.bfloat16):
        logits, maps = ghost.trainable_module(torch.empty(2, 3, 64, 64))
    assert {logits.dtype, *(m.dtype for m in maps)} == {torch.float32} and logits.shape == (2, 10)


def test_a_process_of_several_is_alone():
    group = object()
    dist.GroupMember.WORLD = group
    try:
        with alone():
            assert not dist.is_initialized()
        assert dist.GroupMember.WORLD is group
    finally:
        dist.GroupMember.WORLD = None
