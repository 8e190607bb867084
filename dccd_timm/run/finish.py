"""What comes behind the last epoch: which weights are the better ones, how good they are, report, pictures, card."""

import copy
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from timm.utils import unwrap_model

from dccd_timm.engine.evaluate import evaluate
from dccd_timm.models.load import origin
from dccd_timm.models.student import started_from
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report import console as report
from dccd_timm.report import evidence
from dccd_timm.run import state as checkpoint
from dccd_timm.run.pieces import Data, Pieces
from dccd_timm.run.publisher import Publisher


def finish(
    recipe: Recipe, data: Data, pieces: Pieces, folder: Path, accelerator: Accelerator, result: dict[str, Any],
    control: dict[str, Any] | None, publisher: Publisher,
) -> dict[str, Any]:  # fmt: skip
    """Judge the exported best student, reloaded by timm alone, beside its teacher; write report, pictures and card."""
    accelerator.wait_for_everyone()
    result["seconds"] = round(result["seconds"], 1)
    networks: dict[str, Any] = {"student": report.reload(folder / "best", accelerator)}
    if pieces.judge is not None:
        networks["teacher"] = pieces.judge
    metrics: dict[str, float] = {}
    if pieces.val is not None:
        evaluators = pieces.task.create_evaluator(), pieces.task.create_evaluator()
        metrics = evaluate(
            networks["student"], pieces.val, accelerator, evaluators[0], pieces.judge, evaluators[1],
            recipe.channels_last,
        ) or {}  # fmt: skip
    result["student"] = {k: v for k, v in metrics.items() if not k.startswith("teacher_")} | report.describe(
        recipe.model, recipe.kd_distill_type, networks["student"]
    )
    if start := started_from(recipe, pieces.student):
        result["student"]["start"] = start
    if pieces.judge is not None:
        assert recipe.kd_model_name is not None
        teacher: Any = pieces.judge.model
        result["teacher"] = {k.removeprefix("teacher_"): v for k, v in metrics.items() if k.startswith("teacher_")}
        result["teacher"] |= origin(recipe.kd_model_name, teacher, pretrained=not recipe.kd_teacher_checkpoint)
        result["teacher"] |= report.describe(recipe.kd_model_name, None, teacher)
    if control:
        result["control"] = control["student"] | {"label": METHODS[control["method"]].student_label}
        networks["control"] = report.reload(folder / "control" / "best", accelerator)
    result["hardware"] = hardware(accelerator)
    if pieces.val is not None:
        label = result.get("control", {}).get("label", "")
        result |= evidence.gather(recipe, folder / "report", networks, pieces.val, data.train.names, accelerator, label)
    if accelerator.is_main_process:
        report.close(folder, result)
        publisher.write_card(folder)
        report.farewell(folder, result)
    accelerator.wait_for_everyone()
    return result


def better_weights(
    recipe: Recipe, data: Data, pieces: Pieces, folder: Path, accelerator: Accelerator, best: dict[str, Any] | None,
    epoch: int,
) -> tuple[str | None, dict[str, Any] | None]:  # fmt: skip
    """With --model-ema: judge the last of those weights, plain or averaged, that no validation saw, and export them as
    the best when they are; says which ``best/`` holds now."""
    if not recipe.model_ema or pieces.val is None or best is None:
        return None, best
    averaged = not ema_is_judged(recipe)
    model: Any = copy.deepcopy(unwrap_model(pieces.task.get_eval_model(ema=averaged))).to(accelerator.device)
    metrics = evaluate(
        model, pieces.val, accelerator, pieces.task.create_evaluator(), channels_last=recipe.channels_last
    )
    assert metrics is not None
    if gain(recipe, pieces, metrics[recipe.eval_metric], best["metric"]) <= 0:
        return "raw" if averaged else "ema", best
    if accelerator.is_main_process:
        note = {"dccd_timm": {"method": recipe.kd_distill_type, "epoch": epoch, **metrics}}
        checkpoint.export(model, folder / "best", pieces.data_config, data.train.names, note)
    return "ema" if averaged else "raw", {"epoch": epoch, "metric": metrics[recipe.eval_metric], "metrics": metrics}


def push_so_far(
    recipe: Recipe, pieces: Pieces, folder: Path, best: dict[str, Any], epoch: int, num_epochs: int,
    publisher: Publisher,
) -> None:  # fmt: skip
    """Push the best student of the first ``epoch`` epochs; the last epoch's goes with the report."""
    if epoch == num_epochs:
        return
    student = best.get("metrics", {}) | report.describe(recipe.model, recipe.kd_distill_type, pieces.student)
    told: dict[str, Any] = dict(
        method=recipe.kd_distill_type, epochs=num_epochs, best_epoch=best["epoch"], complete=False, student=student
    )
    if start := started_from(recipe, pieces.student):
        student["start"] = start
    if pieces.judge is not None and recipe.kd_model_name:
        teacher: Any = pieces.judge.model
        told["teacher"] = origin(recipe.kd_model_name, teacher, pretrained=not recipe.kd_teacher_checkpoint)
        told["teacher"] |= report.describe(recipe.kd_model_name, None, teacher)
    publisher.push_interim(folder, told)


def ema_is_judged(recipe: Recipe) -> bool:
    """Whether validations see the average and not the plain weights."""
    return recipe.model_ema and not recipe.model_ema_force_cpu


def gain(recipe: Recipe, pieces: Pieces, metric: float, best: float) -> float:
    """How much better ``metric`` is; without validation it is the training loss."""
    lower_is_better = pieces.val is None or recipe.eval_metric == "loss"
    return best - metric if lower_is_better else metric - best


def hardware(accelerator: Accelerator) -> dict[str, Any]:
    """What a run ran on."""
    precision = {"fp16": "amp float16", "bf16": "amp bfloat16"}.get(accelerator.mixed_precision, "float32")
    return {"world": accelerator.num_processes, "device": accelerator.device.type, "precision": precision}
