"""The story of a validation: any timm model on any data set, alone or beside its teacher."""

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.data import resolve_input_data_config
from timm.layers import apply_test_time_pool
from timm.models import load_checkpoint, reparameterize_model
from timm.task import ClassificationEvaluator
from torch import nn

from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.data.sources import open_split
from dccd_timm.engine.evaluate import evaluate_together
from dccd_timm.errors import UserError, one_line
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.failures import explain
from dccd_timm.launch.process import detach_worker
from dccd_timm.launch.ranks import all_together
from dccd_timm.models.load import create_sized
from dccd_timm.models.teacher import FrozenTeacher, load_teacher
from dccd_timm.recipe import Validation
from dccd_timm.recipe.data_config import DataConfig


def validate(options: Validation) -> dict[str, object]:
    """Judge a model; prints timm's JSON and returns it.

    Raises:
        UserError: for every mistake of settings, data or weights.
    """
    accelerator = start_accelerator(options)
    with all_together(lambda error: explain(error, options, Path(options.results_file or "."))):
        return _validate(options, accelerator)


def _validate(options: Validation, accelerator: Accelerator) -> dict[str, object]:
    set_seed(options.seed)
    model = _build(options)
    parameters = sum(p.numel() for p in model.parameters())
    try:
        found = resolve_input_data_config(model, args=vars(options), use_test_size=not options.use_train_size)
    except (ValueError, AssertionError) as error:
        raise UserError(f"{options.model}: {one_line(error)}") from error
    config = cast(DataConfig, found)
    config["crop_border_pixels"] = options.crop_border_pixels
    pooled = False
    if options.test_pool:
        model, pooled = apply_test_time_pool(model, config)
        config["crop_pct"] = 1.0 if pooled else config["crop_pct"]
    model = model.to(accelerator.device)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    num_classes: int = model.num_classes  # type: ignore[assignment]
    judge = None
    if options.teacher:
        teacher = load_teacher(options.teacher, options.teacher_checkpoint, num_classes)
        judge = FrozenTeacher(teacher, config["mean"], config["std"], config["input_size"]).to(accelerator.device)
    runner = model
    if options.torchcompile:
        runner = cast(nn.Module, torch.compile(model, backend=options.torchcompile, mode=options.torchcompile_mode))

    images = replace(options, in_chans=config["input_size"][0])  # the model's, where --in-chans is not given
    split = open_split(images, options.split, False, options.num_samples)
    rank = Rank(accelerator.device, accelerator.process_index, accelerator.num_processes, detach_worker)
    loader = build_eval_loader(images, split, config, num_classes, rank)
    networks = {"model": runner} if judge is None else {"model": runner, "teacher": judge}
    create_evaluator = partial(ClassificationEvaluator, device=accelerator.device)
    evaluation = evaluate_together(networks, loader, accelerator, create_evaluator, options.channels_last)
    assert evaluation is not None  # no signal stops it
    metrics = evaluation.metrics["model"]
    if judge is not None:
        metrics |= {f"teacher_{name}": value for name, value in evaluation.metrics["teacher"].items()}
        metrics["agreement"] = evaluation.agreement("model", "teacher")
    results = _results(options, metrics, parameters, config)
    if accelerator.is_main_process:
        _write(options, results)
        print(f"--result\n{json.dumps(results, indent=4)}", flush=True)
    return results


def _build(options: Validation) -> nn.Module:
    role = "model (--model)"
    model = create_sized(
        options.model,
        role,
        dict(in_chans=options.in_chans, img_size=options.img_size, input_size=options.input_size),
        options.model_kwargs,
        pretrained=options.pretrained or not options.checkpoint,
        num_classes=options.num_classes,
        global_pool=options.gp,
    )
    if options.checkpoint:
        if not Path(options.checkpoint).is_file():
            raise UserError(f"checkpoint {options.checkpoint} does not exist")
        try:
            load_checkpoint(model, options.checkpoint, options.use_ema)
        except Exception as error:  # torch, safetensors and zip readers each raise their own kinds on a bad file
            raise UserError(
                f"checkpoint {options.checkpoint} does not fit {options.model}: {one_line(error)}"
            ) from error
    if options.reparam:
        model = reparameterize_model(model)
    return model.eval()


def _results(options: Validation, metrics: dict[str, float], parameters: int, config: DataConfig) -> dict[str, object]:
    """timm's result, in its order; a teacher's numbers behind it."""
    results: dict[str, object] = {"model": options.model}
    for name in ("top1", "top5"):
        results |= {name: round(metrics[name], 4), f"{name}_err": round(100 - metrics[name], 4)}
    results |= dict(
        param_count=round(parameters / 1e6, 2), img_size=config["input_size"][-1],
        crop_pct=config["crop_pct"], interpolation=config["interpolation"],
    )  # fmt: skip
    if options.checkpoint:
        results["checkpoint"] = options.checkpoint
    if options.teacher:
        results["teacher"] = options.teacher
        results |= {k: round(metrics[k], 4) for k in ("teacher_top1", "teacher_top5", "agreement")}
    return results


def _write(options: Validation, results: dict[str, object]) -> None:
    if not options.results_file:
        return
    try:
        with open(options.results_file, "w", newline="", encoding="utf-8") as stream:
            if options.results_format == "json":
                json.dump(results, stream, indent=4)
            else:
                writer = csv.DictWriter(stream, fieldnames=results)
                writer.writeheader()
                writer.writerow(results)
    except OSError as error:
        raise UserError(f"--results-file {options.results_file} cannot be written: {error.strerror}") from error
