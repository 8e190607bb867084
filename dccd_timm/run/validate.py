"""A validation: any timm model on any data set, alone or beside its teacher."""

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
from dccd_timm.data.collate import check_limit
from dccd_timm.data.sources import open_split
from dccd_timm.engine.evaluate import evaluate_together
from dccd_timm.errors import UserError, one_line
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.failures import explain
from dccd_timm.launch.modules import worker_preparation
from dccd_timm.launch.ranks import all_together
from dccd_timm.models.classes import class_names
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.load import create_sized
from dccd_timm.models.teacher import load_teacher
from dccd_timm.models.weights import DAMAGED, check_weights
from dccd_timm.recipe import Validation
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.run.classes import number_network, number_split_for


def validate(options: Validation) -> dict[str, object]:
    """Evaluate a model; prints timm's JSON and returns it.

    Raises:
        UserError: for every mistake of settings, data or weights.
    """
    accelerator = start_accelerator(options)
    with all_together(lambda error: explain(error, options, Path(options.results_file or "."))):
        set_seed(options.seed)
        model = _build_model(options)
        num_parameters = sum(p.numel() for p in model.parameters())
        model, config = _configure(options, model, accelerator.device)
        results = _results(options, _evaluate(options, model, config, accelerator), num_parameters, config)
        if accelerator.is_main_process:
            _write(options, results)
            print(f"--result\n{json.dumps(results, indent=4)}", flush=True)
        return results


def _configure(options: Validation, model: nn.Module, device: torch.device) -> tuple[nn.Module, DataConfig]:
    """The model on its device, with test-time pooling if wanted, and the preprocessing of its images."""
    try:
        found = resolve_input_data_config(model, args=vars(options), use_test_size=not options.use_train_size)
    except (ValueError, AssertionError) as error:
        raise UserError(f"{options.model}: {one_line(error)}") from error
    config = cast(DataConfig, found)
    config["crop_border_pixels"] = options.crop_border_pixels
    if options.test_pool:
        model, pooled = apply_test_time_pool(model, config)
        config["crop_pct"] = 1.0 if pooled else config["crop_pct"]
    model = model.to(device)
    if options.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, config


def _evaluate(options: Validation, model: nn.Module, config: DataConfig, accelerator: Accelerator) -> dict[str, float]:
    """Metrics of the model; with a teacher also ``teacher_*`` and ``agreement``."""
    num_classes: int = model.num_classes  # type: ignore[assignment]
    if not num_classes:
        raise UserError(
            f"{options.model} has no classifier (num_classes 0): fine-tune it first (dccd-timm train --model"
            f" {options.model} --pretrained --kd-distill-type none)"
        )
    networks = {"model": model}
    images = replace(options, in_chans=config["input_size"][0])  # the model's, where --in-chans is not given
    split = open_split(images, options.split, False, options.num_samples)
    names = class_names(model, options.checkpoint or None)
    number_split_for(model, names, split, f"split {options.split}")
    if options.teacher:
        teacher = load_teacher(options.teacher, options.teacher_checkpoint, num_classes, "teacher (--teacher)")
        theirs = class_names(teacher, options.teacher_checkpoint)
        number_network(teacher, theirs, names or split.names, f"teacher {options.teacher}")
        try:
            frozen = FrozenTeacher(
                teacher, config["mean"], config["std"], config["input_size"], img_size=options.teacher_img_size
            )
        except ValueError as error:
            raise UserError(f"--teacher {options.teacher}: {one_line(error)}") from error
        networks["teacher"] = frozen.to(accelerator.device)
    if options.torchcompile:
        compiled = torch.compile(model, backend=options.torchcompile, mode=options.torchcompile_mode)
        networks["model"] = cast(nn.Module, compiled)
    prepare_worker = worker_preparation(options.device_modules)
    rank = Rank(accelerator.device, accelerator.process_index, accelerator.num_processes, prepare_worker)
    loader = build_eval_loader(images, split, config, num_classes, rank)
    create_evaluator = partial(ClassificationEvaluator, device=accelerator.device)
    evaluation = evaluate_together(networks, loader, accelerator, create_evaluator, options.channels_last)
    assert evaluation is not None  # no signal stops it
    check_limit(evaluation.skipped, options.max_data_errors)  # each rank checked only its own
    metrics = evaluation.metrics["model"] | evaluation.counts
    if options.teacher:
        metrics |= {f"teacher_{name}": value for name, value in evaluation.metrics["teacher"].items()}
        metrics["agreement"] = evaluation.agreement("model", "teacher")
    return metrics


def _build_model(options: Validation) -> nn.Module:
    model = create_sized(
        options.model,
        "model (--model)",
        dict(in_chans=options.in_chans, img_size=options.img_size, input_size=options.input_size),
        options.model_kwargs,
        pretrained=options.pretrained or not options.checkpoint,
        num_classes=options.num_classes,
        global_pool=options.gp,
    )
    if options.checkpoint:
        if not Path(options.checkpoint).is_file():
            raise UserError(f"checkpoint {options.checkpoint} does not exist")
        check_weights(Path(options.checkpoint), f"checkpoint {options.checkpoint}")
        try:
            load_checkpoint(model, options.checkpoint, options.use_ema)
        except DAMAGED as error:
            raise UserError(f"checkpoint {options.checkpoint} cannot be read: {one_line(error)}") from error
        except Exception as error:  # timm's converters of other projects' weights raise any kind
            raise UserError(
                f"checkpoint {options.checkpoint} does not fit {options.model}: {one_line(error)}"
            ) from error
    if options.reparam:
        model = reparameterize_model(model)
    return model.eval()


def _results(
    options: Validation, metrics: dict[str, float], num_parameters: int, config: DataConfig
) -> dict[str, object]:
    """timm's result, in its order, and after it a teacher's numbers and those of the images."""
    results: dict[str, object] = {"model": options.model}
    for name in ("top1", "top5"):
        results |= {name: round(metrics[name], 4), f"{name}_err": round(100 - metrics[name], 4)}
    results |= dict(
        param_count=round(num_parameters / 1e6, 2), img_size=config["input_size"][-1],
        crop_pct=config["crop_pct"], interpolation=config["interpolation"],
    )  # fmt: skip
    if options.checkpoint:
        results["checkpoint"] = options.checkpoint
    if options.teacher:
        results["teacher"] = options.teacher
        results |= {k: round(metrics[k], 4) for k in ("teacher_top1", "teacher_top5", "agreement")}
    results |= {k: int(metrics[k]) for k in ("images", "skipped")}
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
