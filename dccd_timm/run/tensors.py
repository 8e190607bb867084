"""Tensors of a saved state that accelerate does not save, or not as they are resumed: weights, and what an optimizer
keeps outside its state."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from timm.task import TrainingTask
from torch import Tensor, nn

from dccd_timm.engine.statistics import running_statistics
from dccd_timm.task.contract import unwrapped

_COMPILED = "_orig_mod."  # torch.compile puts it into the names of weights
_WRAPPED = "module."  # DistributedDataParallel and the average put it before them; states of older versions have it


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's weights under the names that they have without compilation and wrappers."""
    own = unwrapped(module).state_dict().items()
    tensors = {name.replace(_COMPILED, ""): value.detach().cpu().contiguous().clone() for name, value in own}
    safetensors.torch.save_file(tensors, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Take what :func:`save_weights` wrote; either side may be compiled.

    Raises:
        ValueError: when they are another network's.
    """
    inner = unwrapped(module)
    saved = {name.replace(_COMPILED, ""): value for name, value in safetensors.torch.load_file(path).items()}
    own = {name.replace(_COMPILED, ""): name for name in inner.state_dict()}
    if not saved.keys() & own.keys():
        saved = {name.removeprefix(_WRAPPED): value for name, value in saved.items()}
    expected = {name: list(value.shape) for name, value in inner.state_dict().items()}
    found = {own.get(name, name): list(value.shape) for name, value in saved.items()}
    wrong = [name for name in expected | found if expected.get(name) != found.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} of {len(expected)} weights are another network's, such as {name.replace(_COMPILED, '')}:"
            f" {expected.get(name, 'none')} wanted, {found.get(name, 'none')} saved"
        )
    inner.load_state_dict({own.get(name, name): value for name, value in saved.items()})


@contextlib.contextmanager
def weights_left_out(accelerator: Accelerator) -> Iterator[None]:
    """In this block accelerate saves and loads everything but weights."""
    hooks = [
        accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear()),
        accelerator.register_load_state_pre_hook(lambda models, folder: models.clear()),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def scaler_left_out(accelerator: Accelerator, unless: bool) -> Iterator[None]:
    """In this block there is no gradient scaler ``unless`` it was saved: mixed precision may begin with a resume."""
    scaler = accelerator.scaler
    accelerator.scaler = scaler if unless else None
    try:
        yield
    finally:
        accelerator.scaler = scaler


def save_statistics(task: TrainingTask, accelerator: Accelerator, folder: Path) -> None:
    """Write this rank's BatchNorm statistics, where there are several ranks: the weights are those of rank 0."""
    if accelerator.num_processes > 1:
        statistics = {k: v.cpu().contiguous().clone() for k, v in _statistics(task).items()}
        safetensors.torch.save_file(statistics, _statistics_file(folder, accelerator))


def load_statistics(task: TrainingTask, accelerator: Accelerator, folder: Path) -> None:
    """Take what :func:`save_statistics` wrote, if it wrote anything."""
    file = _statistics_file(folder, accelerator)
    if file.is_file():
        saved = safetensors.torch.load_file(file)
        for name, statistic in _statistics(task).items():
            if name in saved:
                statistic.copy_(saved[name])


def save_optimizer_extras(optimizer: AcceleratedOptimizer, path: Path) -> None:
    """Write what an optimizer keeps outside its state, if it keeps anything there.

    It is the same on every rank. adahessian has a generator of its own, and the last curvature beside each parameter.
    """
    tensors = {f"generator.{key}.{g.device.type}": g.get_state() for key, g in _generators(optimizer).items()}
    for number, parameter in enumerate(_parameters(optimizer)):
        if isinstance(curvature := getattr(parameter, "hess", None), Tensor):
            tensors[f"hess.{number}"] = curvature.detach().cpu().contiguous().clone()
    if tensors:
        safetensors.torch.save_file(tensors, path)


def load_optimizer_extras(optimizer: AcceleratedOptimizer, path: Path) -> None:
    """Take what :func:`save_optimizer_extras` wrote, if it wrote anything."""
    if not path.is_file():
        return
    saved, parameters = safetensors.torch.load_file(path), _parameters(optimizer)
    for name, value in saved.items():
        kind, key, *device = name.split(".")
        if kind == "hess":
            parameter = parameters[int(key)]
            parameter.hess = value.to(parameter.device)  # type: ignore[attr-defined]
        elif device[0] == parameters[0].device.type:  # another device draws other numbers anyway
            generator = torch.Generator(parameters[0].device)
            generator.set_state(value)
            setattr(_innermost(optimizer), key, generator)


def _innermost(optimizer: object) -> object:
    """The optimizer inside accelerate's and lookahead's wrappers."""
    for wrapped in ("optimizer", "_base_optimizer"):
        if (inner := getattr(optimizer, wrapped, None)) is not None:
            return _innermost(inner)
    return optimizer


def _generators(optimizer: AcceleratedOptimizer) -> dict[str, torch.Generator]:
    return {key: value for key, value in vars(_innermost(optimizer)).items() if isinstance(value, torch.Generator)}


def _parameters(optimizer: AcceleratedOptimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _statistics(task: TrainingTask) -> dict[str, Tensor]:
    """BatchNorm's running statistics of the trainable module and of its average: each rank has its own in an epoch."""
    modules = {"plain": task.get_trainable_module(), "average": task.get_trainable_module(ema=True)}
    return {
        f"{which}.{name}": statistic
        for which, module in modules.items()
        if module is not None
        for name, statistic in running_statistics(unwrapped(module)).items()
    }


def _statistics_file(state: Path, accelerator: Accelerator) -> Path:
    return state / f"statistics_rank{accelerator.process_index}.safetensors"
