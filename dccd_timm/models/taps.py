"""Logits and feature maps of any timm model from one forward.

``forward_intermediates`` gives NCHW maps without prefix tokens for every family, and ``forward_head`` of its final
features gives the logits: one backbone pass, one head pass, no layout guessing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dccd_timm.errors import one_line
from dccd_timm.models.timm_model import as_timm

MIN_POSITIONS = 16


def check_tappable(model: nn.Module, role: str) -> None:
    """Refuse a model without feature maps.

    Raises:
        ValueError: names the model's role and what it lacks, in one line.
    """
    _check_methods(model, role, "forward_intermediates", "forward_head", "feature_info")
    name = f"{role} {type(model).__name__}"
    if _patch_drop(model) > 0:
        raise ValueError(f"{name} drops patches in training, which tears its feature map: set patch_drop_rate to 0")


def check_classifier(model: nn.Module, role: str) -> None:
    """Refuse a model that gives no classes.

    Raises:
        ValueError: as :func:`check_tappable`.
    """
    _check_methods(model, role, "get_classifier")
    if not getattr(model, "num_classes", 0):
        raise ValueError(f"{role} {type(model).__name__} has no classifier (num_classes 0): build it with num_classes")


def _check_methods(model: nn.Module, role: str, *methods: str) -> None:
    for method in methods:
        if not hasattr(model, method):
            raise ValueError(
                f"{role} {type(model).__name__} has no {method}: it cannot be distilled by DCCD; choose a timm"
                " classifier"
            )


def _patch_drop(model: nn.Module) -> float:
    """The rate of a ViT's patch dropout, 0 for all others."""
    drop = getattr(model, "patch_drop", None)
    return float(getattr(drop, "prob", 0.0) or 0.0)


def single_head(model: nn.Module) -> None:
    """Let a two-headed distilled model answer with the mean of its heads, in training too."""
    set_distilled_training = getattr(model, "set_distilled_training", None)
    if set_distilled_training is not None:
        set_distilled_training(False)


def tapped_forward(
    model: nn.Module, images: Float[Tensor, "N _ _ _"], stages: Sequence[int]
) -> tuple[Float[Tensor, "N K"], list[Float[Tensor, "N _ _ _"]]]:
    """Logits [N, K] and the maps [N, C, H, W] of ``stages`` (indices into feature_info, ascending) in one pass."""
    maps: list[Tensor] = []
    logits: Tensor | tuple[Tensor, ...]
    if stages:
        timm_model = as_timm(model)
        final, maps = timm_model.forward_intermediates(images, indices=list(stages), output_fmt="NCHW")
        logits = timm_model.forward_head(final)
    else:
        logits = model(images)
    if isinstance(logits, tuple):
        logits = torch.stack(logits).mean(0)
    return logits, maps


def tapped_maps(
    model: nn.Module, images: Float[Tensor, "N _ _ _"], stages: Sequence[int]
) -> list[Float[Tensor, "N _ _ _"]]:
    """The maps of :func:`tapped_forward` alone: of a model without a head, which may not even pool its last map."""
    maps: list[Tensor] = as_timm(model).forward_intermediates(  # type: ignore[assignment]
        images, indices=list(stages), output_fmt="NCHW", intermediates_only=True
    )
    return maps


def probe(model: nn.Module, input_size: tuple[int, ...], role: str) -> list[tuple[int, int, int]]:
    """Channels, height and width of the map of every stage, from one image of ``input_size`` [C, H, W] in eval mode.

    feature_info's reductions are not exact for every family, and small images round; the real shapes decide.

    Raises:
        ValueError: when the model cannot take the image or its maps differ from its feature_info.
    """
    check_tappable(model, role)
    timm_model = as_timm(model)
    was_training = model.training
    parameter = next(model.parameters())
    image = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with torch.no_grad():
            stages = range(len(timm_model.feature_info))
            if timm_model.num_classes:
                _, maps = tapped_forward(model.eval(), image, stages)
            else:
                maps = tapped_maps(model.eval(), image, stages)
    except (AssertionError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(
            f"{role} {type(model).__name__} gives no feature maps for images of {input_size}: {one_line(error)}"
        ) from error
    finally:
        model.train(was_training)
    shapes = [tuple(m.shape[1:]) for m in maps]
    for stage, (shape, info) in enumerate(zip(shapes, timm_model.feature_info, strict=True)):
        if len(shape) != 3 or shape[0] != info["num_chs"]:
            raise ValueError(
                f"{role} {type(model).__name__}: the map of stage {stage} is {shape}, not [{info['num_chs']}, H, W]"
            )
    return [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]


def choose_stages(
    shapes: Sequence[tuple[int, int, int]], wanted: Sequence[int] | None, role: str, pooled: bool = False
) -> list[int]:
    """Stages to compare, ascending: ``wanted`` counts from the end (-1 is the last), None takes the deepest that has
    at least 16 positions (the last one when channels are compared after pooling).

    Raises:
        ValueError: for stages that do not exist, or when no stage has enough positions.
    """
    if wanted is None:
        if pooled:
            return [len(shapes) - 1]
        large = [k for k, (_, h, w) in enumerate(shapes) if h * w >= MIN_POSITIONS]
        if not large:
            raise ValueError(
                f"no stage of the {role} has {MIN_POSITIONS} positions (its maps: {[s[1:] for s in shapes]}): use"
                " larger images, or name stages"
            )
        return [large[-1]]
    stages = sorted(k if k >= 0 else len(shapes) + k for k in wanted)
    if len(set(stages)) != len(stages) or not all(0 <= k < len(shapes) for k in stages):
        raise ValueError(f"stages {tuple(wanted)}: the {role} has {len(shapes)} stages, -1 to -{len(shapes)}")
    return stages
