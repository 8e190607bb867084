"""What the start block shows of a training beside its recipe."""

from pathlib import Path

from accelerate import Accelerator

from dccd_timm.engine.optim import learning_rate
from dccd_timm.models.cost import gmacs
from dccd_timm.recipe import Recipe
from dccd_timm.report.console import StartFacts
from dccd_timm.run.finish import hardware, student_report, teacher_report
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.task.build import term_weights


def start_facts(
    recipe: Recipe, splits: Splits, training: Training, accelerator: Accelerator, num_epochs: int, folder: Path
) -> StartFacts:
    """Collect them from what is about to be trained."""
    num_classes: int = training.student.num_classes  # type: ignore[assignment]
    return StartFacts(
        student=student_report(recipe, training.student, training.student),
        teacher=teacher_report(recipe, training),
        gmacs=_gmacs(training),
        terms=term_weights(training.task),
        images=splits.train.num_samples,
        classes=num_classes,
        input_size=tuple(training.data_config["input_size"]),
        updates_per_epoch=training.loader.batches_per_epoch // recipe.grad_accum_steps,
        epochs=num_epochs,
        lr=learning_rate(recipe, accelerator.num_processes),
        hardware=hardware(accelerator),
        folder=folder,
    )


def _gmacs(training: Training) -> dict[str, float | None]:
    """Billions of multiply-accumulates of both networks for one image."""
    size = tuple(training.data_config["input_size"])
    costs = {"student": gmacs(training.student, size)}
    if teacher := training.teacher:
        costs["teacher"] = gmacs(teacher.model, teacher.input_size(size))
    return costs
