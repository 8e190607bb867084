"""What the best student is: which metric counts, and plain weights or their moving average (EMA)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from accelerate import Accelerator

from dccd_timm.recipe import Recipe, Student
from dccd_timm.report.schema import JsonDataclass
from dccd_timm.run.export import export
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.score import score
from dccd_timm.task.contract import plain_copy


@dataclass(frozen=True)
class Best(JsonDataclass):
    """The best epoch so far: its number, its ``--eval-metric`` and all metrics of its validation.

    Without a validation split the metric is the training loss and ``metrics`` is empty. ``weights`` says which kind
    ``best/`` holds, plain or averaged; None without EMA or validation, and in states of older versions.
    """

    epoch: int
    metric: float
    metrics: dict[str, float] = field(default_factory=dict)
    weights: Literal["raw", "ema"] | None = None


def validates_ema(options: Student) -> bool:
    """Whether the validation after each epoch is that of the averaged weights, not the plain ones."""
    return options.model_ema and not options.model_ema_force_cpu


def validated_weights(recipe: Recipe) -> Literal["raw", "ema"] | None:
    """Which kind of weights the validation after each epoch sees; None without EMA or validation."""
    if not recipe.model_ema or not recipe.val_split:
        return None
    return "ema" if validates_ema(recipe) else "raw"


def is_better(recipe: Recipe, metric: float, best: Best | None) -> bool:
    """Whether ``metric`` beats the best epoch so far; without validation it is the training loss."""
    if best is None:
        return True
    return metric < best.metric if recipe.lower_is_better else metric > best.metric


def choose_weights(
    recipe: Recipe, splits: Splits, training: Training, folder: Path, accelerator: Accelerator, best: Best | None,
    epoch: int,
) -> Best | None:  # fmt: skip
    """After the training with --model-ema: evaluate the kind of weights that no validation saw, plain or averaged.

    If they are the better ones they are exported as the best student.

    Returns:
        What ``best/`` holds now.
    """
    if not recipe.model_ema or training.val is None or best is None:
        return best
    averaged = not validates_ema(recipe)
    eval_model = training.task.get_eval_model(ema=averaged)
    assert eval_model is not None
    model = plain_copy(eval_model).to(accelerator.device)
    metrics = score(recipe, training, accelerator, model, ema=averaged)
    assert metrics is not None
    if not is_better(recipe, metrics[recipe.score], best):
        return replace(best, weights=best.weights or validated_weights(recipe))
    if accelerator.is_main_process:
        note = {"dccd_timm": {"method": recipe.kd_distill_type, "epoch": epoch, **metrics}}
        export(model, folder / "best", training.data_config, splits.train.names, note)
    return Best(epoch, metrics[recipe.score], metrics, "ema" if averaged else "raw")
