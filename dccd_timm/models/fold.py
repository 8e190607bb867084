"""A frozen network's BatchNorms folded into its convolutions: the same answers with a pass less over each map."""

import copy
from collections import Counter
from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models import get_model_input_config
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dccd_timm.models.taps import tapped_forward, tapped_maps
from dccd_timm.models.timm_model import as_timm

# Largest change of an answer, as a part of its largest value: far above rounding, far below a wrong fold.
_TOLERANCE = 1e-3


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of an eval-mode timm model with every BatchNorm that directly follows one convolution folded into it.

    Which follow is seen on a noise image of the model's own size; logits and the maps of all stages are compared before
    and after. Returns the model itself when there is nothing to fold, it is not float32, or the answers would change
    by more than rounding.
    """
    parameter = next(model.parameters())
    if parameter.dtype != torch.float32 or not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
        return model
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, *get_model_input_config(model)["input_size"], generator=generator).to(parameter.device)
    try:
        pairs, before = _neighbours(model, image)
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return model  # no maps, or not of such an image: the task raises where it needs them
    if not pairs:
        return model
    folded = copy.deepcopy(model)
    for conv_name, norm_name in pairs:
        conv, norm = folded.get_submodule(conv_name), folded.get_submodule(norm_name)
        folded.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))  # type: ignore[arg-type, type-var]
        # what BatchNormAct2d does besides normalising stays
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        folded.set_submodule(norm_name, rest)
    try:
        after = _answers(folded, image)
    except (AttributeError, TypeError):  # a model that looks into its own norms
        return model
    same = all((a - b).abs().max() <= _TOLERANCE * b.abs().max() for a, b in zip(after, before, strict=True))
    return folded.eval().requires_grad_(False) if same else model


def _answers(model: nn.Module, image: Tensor) -> list[Tensor]:
    stages = range(len(as_timm(model).feature_info))
    if not as_timm(model).num_classes:
        return tapped_maps(model, image, stages)
    logits, maps = tapped_forward(model, image, stages)
    return [logits, *maps]


def _neighbours(model: nn.Module, image: Tensor) -> tuple[list[tuple[str, str]], list[Tensor]]:
    """Names of convolution and norm where the norm takes what the convolution gave, and the model's answers."""
    calls: Counter[str] = Counter()
    made: dict[int, tuple[str, Tensor]] = {}
    found: list[tuple[str, str]] = []

    def on_conv(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            made[id(output)] = name, output  # the tensor is kept, so that no other one gets its id

        return hook

    def on_norm(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            if id(args[0]) in made:
                found.append((made[id(args[0])][0], name))

        return hook

    handles = []
    for name, module in model.named_modules():
        # exact types: a subclass may compute something else from the same weights
        if type(module) in (nn.Conv2d, Conv2dSame):
            handles.append(module.register_forward_hook(on_conv(name)))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(on_norm(name)))
    try:
        answers = _answers(model, image)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if calls[pair[0]] == calls[pair[1]] == 1], answers
