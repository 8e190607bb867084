"""The student: any timm model, built as the recipe says, with the run's own preprocessing in its pretrained_cfg."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Protocol, cast

import torch
from timm.data import resolve_input_data_config
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.load import checkpoint_file, create_sized, origin
from dccd_timm.models.timm_model import TimmModel, as_timm
from dccd_timm.models.weights import check_weights
from dccd_timm.recipe import Recipe, Student
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.recipe.model_name import ModelName


def build_student(options: Student, num_classes: int | None) -> tuple[nn.Module, DataConfig]:
    """The student and timm's data config of the run (input_size, mean, std, interpolation, crop_pct, crop_mode).

    mean, std and crop go into the student's pretrained_cfg: timm's own tasks read the normalisation there and would
    otherwise undo the wrong one under ``--mean/--std``.

    Raises:
        UserError: when the model cannot be built or does not take such images.
    """
    role = "student (--model)"
    if options.pretrained_path:
        if not Path(options.pretrained_path).is_file():
            raise UserError(f"--pretrained-path {options.pretrained_path} does not exist, or is no file")
        check_weights(Path(options.pretrained_path), f"--pretrained-path {options.pretrained_path}")
    # num_classes -1: the file's head is adapted to the data set, as timm's train.py does it
    overlay = dict(file=options.pretrained_path, num_classes=-1) if options.pretrained_path else None
    created = create_sized(
        options.model,
        role,
        dict(in_chans=options.in_chans, img_size=options.img_size, input_size=options.input_size),
        options.model_kwargs,
        num_classes=num_classes,
        drop_rate=options.drop,
        drop_path_rate=options.drop_path,
        drop_block_rate=options.drop_block,
        global_pool=options.gp,
        bn_momentum=options.bn_momentum,
        bn_eps=options.bn_eps,
        checkpoint_path=checkpoint_file(options.initial_checkpoint, "--initial-checkpoint") or None,
        pretrained=options.pretrained or overlay is not None,
        pretrained_cfg_overlay=overlay,
    )
    model = as_timm(created)
    _initialise_head(model, options)
    if options.grad_checkpointing:
        try:
            model.set_grad_checkpointing(enable=True)
        except (AssertionError, AttributeError) as error:
            raise UserError(f"{options.model} has no gradient checkpointing: drop --grad-checkpointing") from error
    try:
        data_config = cast(DataConfig, resolve_input_data_config(model, args=vars(options)))
    except (ValueError, AssertionError) as error:
        raise UserError(f"{role} {options.model}: {one_line(error)}") from error
    preprocessing = dict(mean=data_config["mean"], std=data_config["std"], crop_pct=data_config["crop_pct"])
    model.pretrained_cfg = model.pretrained_cfg | preprocessing
    return model, data_config


def started_from(options: Student, model: nn.Module) -> Mapping[str, str | None] | None:
    """Where the student's first weights came from, as :func:`origin` says it; None when they were drawn."""
    if options.initial_checkpoint:
        if ModelName.parse(options.initial_checkpoint).source == "hf-hub":
            return {**origin(options.initial_checkpoint, model), "license": None}
        return {"name": "a checkpoint of its author's"}
    if options.pretrained_path:
        return {"name": "a checkpoint of its author's"}
    return origin(options.model, model) if options.pretrained else None


def _initialise_head(model: TimmModel, options: Student) -> None:
    scale, bias = options.head_init_scale, options.head_init_bias
    if scale is None and bias is None:
        return
    head = model.get_classifier()
    head_weight, head_bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(head_weight, Tensor) or not isinstance(head_bias, Tensor):
        raise UserError(f"head_init_scale and head_init_bias need one linear classifier; {options.model} has none")
    with torch.no_grad():
        if scale is not None:
            head_weight.mul_(scale)
            head_bias.mul_(scale)
        if bias is not None:
            head_bias.fill_(bias)


def share_batch_norms(student: nn.Module, recipe: Recipe, ranks: int, device: torch.device) -> nn.Module:
    """``--sync-bn``: statistics over all ranks; ``--split-bn``: of each view by itself. No weight changes its name.

    Raises:
        UserError: for statistics over ranks that have no GPU.
    """
    if recipe.sync_bn and ranks > 1:
        if device.type == "cpu":
            raise UserError("--sync-bn needs GPUs: torch has no SyncBatchNorm for CPUs; drop it there")
        student = convert_sync_batchnorm(student)  # timm's: torch's would lose the activation of a BatchNormAct2d
    if recipe.split_bn:
        for module in student.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                # methods of the instance: a copy of the module has its own, torch.compile knows them, and no weight
                # changes its name
                module.views, module.whole_forward = recipe.dccd_views, module.forward  # type: ignore[assignment]
                module.forward = MethodType(_view_by_view, module)  # type: ignore[method-assign]
    return student


class _SplitNorm(Protocol):
    """A norm that :func:`share_batch_norms` gave its number of views and its own forward."""

    training: bool
    views: int
    whole_forward: Callable[[Tensor], Tensor]


def _view_by_view(norm: _SplitNorm, inputs: Tensor) -> Tensor:
    """A norm's own forward; in training of each view [B, ...] of a view-major batch [V * B, ...] in turn."""
    if not norm.training:
        return norm.whole_forward(inputs)
    return torch.cat([norm.whole_forward(view) for view in inputs.chunk(norm.views)])


def check_batch_norm(model: nn.Module, recipe: Recipe) -> None:
    """Refuse a step that would show BatchNorm a single sample: it has no variance.

    Raises:
        UserError: names batch size and views.
    """
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    if recipe.batch_size * (1 if recipe.split_bn else recipe.dccd_views) == 1 and any(norms):
        raise UserError(f"batch size 1 leaves BatchNorm in {recipe.model} one sample of a view: raise --batch-size")
