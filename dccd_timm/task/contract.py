"""The contract of timm's TrainingTask for a tapped student: prepare, compile, evaluate, save, clip."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from timm.task import TrainingTask
from torch import Tensor, nn

from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.timm_model import as_timm
from dccd_timm.task.trainable import TappedStudent


class TappedTask(TrainingTask):
    """A task that trains a :class:`TappedStudent` beside a frozen teacher; a subclass adds the forward."""

    teacher: FrozenTeacher
    trainable_module: nn.Module

    def prepare_distributed(self, device_ids: list[int] | None = None, **ddp_kwargs: Any) -> Self:
        """Wrap student and channel maps in DistributedDataParallel, for timm's own loop; accelerate does it itself."""
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    # timm's signature, which is not that of nn.Module
    def compile(  # type: ignore[override]
        self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any
    ) -> nn.Module:
        """Compile student and teacher, not the losses (their collectives cannot be); returns the eval model."""
        student = self._trainable().student
        self.eval_model = _as_module(torch.compile(student, backend=backend, mode=mode, **compile_kwargs))
        self.trainable_module = _as_module(
            torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        )
        self.teacher.compile(backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """The plain student under EMA, DDP or compile wrappers."""
        resolved = super().get_eval_model(module=module, ema=ema)
        inner = None if resolved is None else unwrapped(resolved)
        return inner.student if isinstance(inner, TappedStudent) else resolved

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, dict[str, Tensor]]:
        """The channel maps' weights, apart from the student's; none without an EMA to take them from."""
        if module is None and self.get_trainable_module(ema=ema) is None:
            return {}
        state = self._trainable(module, ema).channel_maps.state_dict()
        return {"channel_maps": state} if state else {}

    def load_task_state(
        self,
        state: dict[str, dict[str, Tensor]] | None,
        strict: bool = True,
        module: nn.Module | None = None,
        ema: bool = False,
    ) -> None:
        """Load what :meth:`get_task_state` gave.

        Raises:
            RuntimeError: when the maps do not fit, or there is no EMA to load into.
        """
        if state:
            self._trainable(module, ema).channel_maps.load_state_dict(state["channel_maps"], strict=strict)

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Parameters to clip; ``exclude_head`` leaves out those of the classifier(s), however many they are."""
        trainable = self._trainable()
        head: set[int] = set()
        if exclude_head:
            classifier = as_timm(trainable.student).get_classifier()
            modules = classifier if isinstance(classifier, Sequence) else [classifier]
            head = {id(p) for m in modules if isinstance(m, nn.Module) for p in m.parameters()}
        return [p for p in trainable.parameters() if id(p) not in head]

    def _trainable(self, module: nn.Module | None = None, ema: bool = False) -> TappedStudent:
        module = module if module is not None else self.get_trainable_module(ema=ema)
        if module is None:
            raise RuntimeError("there is no such trainable module: was setup_ema() called?")
        inner = unwrapped(module)
        assert isinstance(inner, TappedStudent)
        return inner


def unwrapped(module: nn.Module) -> nn.Module:
    """What lies under EMA, DDP and compile wrappers, in whatever order."""
    while True:
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def plain_copy(module: nn.Module, memo: dict[int, object] | None = None) -> nn.Module:
    """A copy of the network itself, as timm builds it: without wrappers, and without accelerate's mixed precision.

    ``memo`` is that of ``copy.deepcopy``: what takes the place of an object, by the object's id.

    ``Accelerator.prepare`` puts autocast into the network's own ``forward``. Its ``unwrap_model`` takes it out of the
    network that is being trained, and leaves a compiled one that cannot be called.
    """
    plain: nn.Module = copy.deepcopy(unwrapped(module), memo)
    if plain.__dict__.pop("_original_forward", None) is not None:
        plain.__dict__.pop("forward", None)  # the class's own forward comes to light again
    return plain


def _as_module(compiled: object) -> nn.Module:
    """torch.compile of a module is a module, which its type does not say."""
    assert isinstance(compiled, nn.Module)
    return compiled
