"""A step does not wait for the device: its forwards, losses and backward read no value and have no shape from one."""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dccd_timm.engine.meter import LossMeter
from dccd_timm.engine.nonfinite import UpdateGuard
from dccd_timm.recipe.methods import LOGIT_LOSSES, METHODS
from tests.task.small import batch
from tests.task.test_build import build

aten = torch.ops.aten
# operations that bring a value to the host, or whose result has as many rows as values say
READ = {
    aten._local_scalar_dense, aten.item, aten.is_nonzero, aten.equal, aten.allclose, aten.nonzero, aten.nonzero_numpy,
    aten.argwhere, aten.masked_select, aten.unique_dim, aten._unique, aten._unique2, aten.unique_consecutive,
    aten.bincount, aten.repeat_interleave,
}  # fmt: skip
# what shows in no operation: some do nothing on the CPU, others make a tensor of Python's numbers in the host's memory,
# whose copy to the device is waited for
READ_OR_MADE = {
    torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__bool__,
    torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.__array__,
    torch.Tensor.new_tensor, torch.tensor, torch.as_tensor, torch.from_numpy,
}  # fmt: skip


class NoWaiting(TorchFunctionMode):
    """Raises at whatever would wait for the device, were the tensors on one; in the backward pass too."""

    def __enter__(self):
        self.operations = _NoWaitingOperations()
        self.operations.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.operations.__exit__(*error)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in READ_OR_MADE:
            raise AssertionError(f"waits for the device: {function}")
        return function(*args, **kwargs or {})


class _NoWaitingOperations(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        packet, kwargs = operation.overloadpacket, kwargs or {}
        masked = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if packet in READ or masked:
            raise AssertionError(f"waits for the device: {operation}")
        result = operation(*args, **kwargs)
        if packet is aten._to_copy and result.device != args[0].device:
            raise AssertionError(f"waits for the device: {operation} from {args[0].device} to {result.device}")
        return result


WAITS = {
    "item": lambda x: x.sum().item(),
    "truth value": lambda x: bool((x > 0).all()),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "another device": lambda x: x.to("meta"),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "assigned by a mask": lambda x: x.__setitem__(x > 0, torch.zeros_like(x[0, 0])),
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "numbers of the host": lambda x: x + torch.tensor([1.0, 2.0]),
    "new numbers": lambda x: x + x.new_tensor([2.0]),
    "equal": lambda x: torch.equal(x, x),
}


@pytest.mark.parametrize("kind", WAITS)
def test_waiting_is_found(kind):
    x = torch.randn(3, 2)
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        WAITS[kind](x)


def test_waiting_in_a_backward_is_found():
    class Waits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * grad.sum().item()

    loss = Waits.apply(torch.ones(3, requires_grad=True)).sum()
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        loss.backward()


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """It does not know the meta device; here it is off in any case."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())


def check_step(task, soft_targets=False):
    """A step on the meta device: it has no values, and what stayed in the host's memory cannot meet its tensors."""
    images, target = (tensor.to("meta") for tensor in batch())
    images, target = images.transpose(0, 1).flatten(0, 1), target.repeat(2)
    if soft_targets:
        target = torch.empty(len(target), 10, device="meta")
    task.to("meta").train()
    task._checked = True  # the first batch is looked at
    guard, meter = UpdateGuard("stop", task.get_trainable_module(), False), LossMeter(target.device)
    with NoWaiting():
        result = task(images, target)
        result["loss"].backward()
        assert guard.may_update(meter, 0)
        meter.add(result, 0)


SETTINGS = [
    *((method, ()) for method in METHODS),
    *(("logit", ("--kd-loss-type", loss)) for loss in LOGIT_LOSSES if loss != "kl"),
    ("none", ("--bce-loss",)),
    ("dccd", ("--dccd-contrast-negatives", "student")),
    ("dccd", ("--dccd-contrast-targets", "hard", "--dccd-contrast-direction", "student")),
    ("dccd", ("--dccd-contrast-where", "pooled", "--dccd-difference-loss", "mse")),
]


@pytest.mark.parametrize(
    ("method", "flags"), SETTINGS, ids=lambda value: value if isinstance(value, str) else "".join(value)
)
def test_a_step_does_not_wait(method, flags):
    check_step(build(method, *flags))


@pytest.mark.parametrize("method", ["logit", "dccd", "ofa"])
def test_a_step_on_mixed_targets_does_not_wait(method):
    check_step(build(method, soft_targets=True), soft_targets=True)
