"""What comes behind the last epoch: which weights are the better ones, how good they are, report, pictures, card."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator

from dccd_timm.engine.evaluate import evaluate
from dccd_timm.models.load import origin
from dccd_timm.models.student import started_from
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report import console as report
from dccd_timm.report import evidence
from dccd_timm.report.schema import Report
from dccd_timm.run.best import Best
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.publisher import Publisher


def finish(
    recipe: Recipe, splits: Splits, training: Training, folder: Path, accelerator: Accelerator, result: dict[str, Any],
    control: dict[str, Any] | None, publisher: Publisher,
) -> dict[str, Any]:  # fmt: skip
    """Judge the exported best student, reloaded by timm alone, beside its teacher; write report, pictures and card."""
    accelerator.wait_for_everyone()
    result["seconds"] = round(result["seconds"], 1)
    networks: dict[str, Any] = {"student": report.reload(folder / "best", accelerator)}
    if training.teacher is not None:
        networks["teacher"] = training.teacher
    metrics: dict[str, float] = {}
    if training.val is not None:
        evaluators = training.task.create_evaluator(), training.task.create_evaluator()
        metrics = evaluate(
            networks["student"], training.val, accelerator, evaluators[0], training.teacher, evaluators[1],
            recipe.channels_last,
        ) or {}  # fmt: skip
    result["student"] = {k: v for k, v in metrics.items() if not k.startswith("teacher_")} | report.describe(
        recipe.model, recipe.kd_distill_type, networks["student"]
    )
    if start := started_from(recipe, training.student):
        result["student"]["start"] = start
    if training.teacher is not None:
        assert recipe.kd_model_name is not None
        teacher: Any = training.teacher.model
        result["teacher"] = {k.removeprefix("teacher_"): v for k, v in metrics.items() if k.startswith("teacher_")}
        result["teacher"] |= origin(recipe.kd_model_name, teacher, pretrained=not recipe.kd_teacher_checkpoint)
        result["teacher"] |= report.describe(recipe.kd_model_name, None, teacher)
    if control:
        result["control"] = control["student"] | {"label": METHODS[control["method"]].student_label}
        networks["control"] = report.reload(folder / "control" / "best", accelerator)
    result["hardware"] = hardware(accelerator)
    if training.val is not None:
        label = result.get("control", {}).get("label", "")
        result |= evidence.gather(
            recipe, folder / "report", networks, training.val, splits.train.names, accelerator, label
        )
    if accelerator.is_main_process:
        report.close(folder, result)
        publisher.write_card(folder)
        report.farewell(folder, result)
    accelerator.wait_for_everyone()
    return result


def push_so_far(
    recipe: Recipe, training: Training, folder: Path, best: Best, epoch: int, num_epochs: int,
    publisher: Publisher,
) -> None:  # fmt: skip
    """Push the best student of the first ``epoch`` epochs; the last epoch's goes with the report."""
    if epoch == num_epochs:
        return
    student = best.metrics | report.describe(recipe.model, recipe.kd_distill_type, training.student)
    told: dict[str, Any] = dict(
        method=recipe.kd_distill_type, epochs=num_epochs, best_epoch=best.epoch, complete=False, student=student
    )
    if start := started_from(recipe, training.student):
        student["start"] = start
    if training.teacher is not None and recipe.kd_model_name:
        teacher: Any = training.teacher.model
        told["teacher"] = origin(recipe.kd_model_name, teacher, pretrained=not recipe.kd_teacher_checkpoint)
        told["teacher"] |= report.describe(recipe.kd_model_name, None, teacher)
    publisher.push_interim(folder, Report.from_json(told))


def hardware(accelerator: Accelerator) -> dict[str, Any]:
    """What a run ran on."""
    precision = {"fp16": "amp float16", "bf16": "amp bfloat16"}.get(accelerator.mixed_precision, "float32")
    return {"world": accelerator.num_processes, "device": accelerator.device.type, "precision": precision}
