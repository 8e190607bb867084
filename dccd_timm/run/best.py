"""What the best student is: which metric counts, and plain weights or their moving average (EMA)."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from timm.utils import unwrap_model
from torch import nn

from dccd_timm.engine.evaluate import evaluate
from dccd_timm.recipe import Recipe, Run, Student
from dccd_timm.report.schema import JsonDataclass
from dccd_timm.run.export import export
from dccd_timm.run.pieces import Splits, Training


@dataclass(frozen=True)
class Best(JsonDataclass):
    """The best epoch so far: its number, its ``--eval-metric`` and all metrics of its validation.

    Without a validation split the metric is the training loss and ``metrics`` is empty.
    """

    epoch: int
    metric: float
    metrics: dict[str, float] = field(default_factory=dict)


def validates_ema(options: Student) -> bool:
    """Whether the validation after each epoch is that of the averaged weights, not the plain ones."""
    return options.model_ema and not options.model_ema_force_cpu


def is_better(options: Run, metric: float, best: Best | None, validated: bool) -> bool:
    """Whether ``metric`` beats the best epoch so far; without validation it is the training loss."""
    if best is None:
        return True
    lower_is_better = not validated or options.eval_metric == "loss"
    return metric < best.metric if lower_is_better else metric > best.metric


def choose_weights(
    recipe: Recipe, splits: Splits, training: Training, folder: Path, accelerator: Accelerator, best: Best | None,
    epoch: int,
) -> tuple[str | None, Best | None]:  # fmt: skip
    """After the training with --model-ema: evaluate the kind of weights that no validation saw, plain or averaged.

    If they are the better ones they are exported as the best student.

    Returns:
        Which kind ``best/`` holds now, "raw" or "ema" (None without EMA or validation), and the best epoch.
    """
    if not recipe.model_ema or training.val is None or best is None:
        return None, best
    averaged = not validates_ema(recipe)
    model: nn.Module = copy.deepcopy(unwrap_model(training.task.get_eval_model(ema=averaged))).to(accelerator.device)
    evaluator = training.task.create_evaluator()
    metrics = evaluate(model, training.val, accelerator, evaluator, channels_last=recipe.channels_last)
    assert metrics is not None
    if not is_better(recipe, metrics[recipe.eval_metric], best, validated=True):
        return "raw" if averaged else "ema", best
    if accelerator.is_main_process:
        note = {"dccd_timm": {"method": recipe.kd_distill_type, "epoch": epoch, **metrics}}
        export(model, folder / "best", training.data_config, splits.train.names, note)
    return "ema" if averaged else "raw", Best(epoch, metrics[recipe.eval_metric], metrics)
