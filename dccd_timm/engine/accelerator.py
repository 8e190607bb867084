"""How accelerate is started: device, precision, accumulation, trackers, and who may talk."""

import importlib
import logging
import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from timm.layers import set_fast_norm

from dccd_timm.engine.stop import end_with_parent
from dccd_timm.recipe import Recipe, UserError


def start_accelerator(recipe: Recipe) -> Accelerator:
    """The process's Accelerator, with timm's device settings made.

    Raises:
        UserError: for a precision or tracker that is not to be had here, or a launch that would train N times alone.
    """
    for module in recipe.device_modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(f"--device-modules {module} cannot be imported: {error}") from error
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        end_with_parent()
    cpu = recipe.device == "cpu" or not torch.accelerator.is_available()
    if recipe.amp and cpu and recipe.amp_dtype == "float16":
        raise UserError("float16 needs a GPU: use --amp-dtype bfloat16, or drop --amp")
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision={"float16": "fp16", "bfloat16": "bf16"}[recipe.amp_dtype] if recipe.amp else None,
        gradient_accumulation_steps=recipe.grad_accum_steps,
        log_with="wandb" if recipe.log_wandb else None,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=not recipe.no_ddp_bb)],
    )
    if int(os.environ.get("WORLD_SIZE", "1")) != accelerator.num_processes:
        raise UserError(
            f"the launcher started {os.environ['WORLD_SIZE']} processes but accelerate sees"
            f" {accelerator.num_processes}: use accelerate launch --multi_gpu, or torchrun --nproc-per-node"
        )
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if recipe.fast_norm:
        set_fast_norm()
    if not accelerator.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    if recipe.log_wandb:
        _start_wandb(accelerator, recipe)
    return accelerator


def _start_wandb(accelerator: Accelerator, recipe: Recipe) -> None:
    if not accelerator.log_with:
        raise UserError("--log-wandb needs the package: pip install wandb")
    options: dict[str, Any] = {"name": recipe.experiment or None, "tags": list(recipe.wandb_tags)}
    if recipe.wandb_resume_id:
        options |= {"id": recipe.wandb_resume_id, "resume": "must"}
    accelerator.init_trackers(recipe.wandb_project or "dccd-timm", init_kwargs={"wandb": options})
