"""What precedes the first epoch: the run's folder, a picture of the views, and the start block."""

from pathlib import Path

from accelerate import Accelerator

from dccd_timm.data.sources import Source
from dccd_timm.engine.optim import learning_rate
from dccd_timm.errors import logged_failure
from dccd_timm.models.cost import gmacs
from dccd_timm.recipe import Recipe
from dccd_timm.report.console import SplitFacts, StartFacts, start_block
from dccd_timm.report.pictures import draw_views
from dccd_timm.run.finish import add_metrics, hardware, student_report, teacher_report
from dccd_timm.run.folder import clean_up, write_settings
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.probe import write_probe
from dccd_timm.run.resume import ResumePoint
from dccd_timm.run.teacher import write_evaluation
from dccd_timm.task.build import term_weights


def begin_run(
    recipe: Recipe, splits: Splits, training: Training, folder: Path, accelerator: Accelerator, point: ResumePoint
) -> None:
    """Write the settings into the locked ``folder`` and print what is trained; a new run also draws its first views.

    Raises:
        UserError: when the disk refuses.
    """
    if training.answers is not None:
        training.answers.begin(teacher_report(recipe, training))
    if accelerator.is_main_process:
        clean_up(folder)
        resumed = point.state is not None
        write_settings(folder, recipe, point.history, resumed)
        write_probe(training.teacher_probe, folder)
        write_evaluation(training, folder)
        if not resumed:
            batch, config = training.loader.peek(), training.data_config
            with logged_failure("report/views.png was not drawn", folder):
                target = None if recipe.is_unlabelled else batch.target
                draw_views(folder, batch.views, target, config["mean"], config["std"], splits.train.names)
        print(start_block(recipe, start_facts(recipe, splits, training, accelerator, folder)), flush=True)
    accelerator.wait_for_everyone()


def start_facts(
    recipe: Recipe, splits: Splits, training: Training, accelerator: Accelerator, folder: Path
) -> StartFacts:
    """What the start block shows of a training beside its recipe."""
    num_classes: int = training.student.num_classes  # type: ignore[assignment]
    teacher, evaluation = teacher_report(recipe, training), training.teacher_evaluation
    if teacher and evaluation:
        add_metrics(teacher, "teacher", evaluation)
    costs = networks_gmacs(training)
    return StartFacts(
        student=student_report(recipe, training.student, training.student),
        teacher=teacher,
        evaluated=evaluation.counts if evaluation else None,
        has_logits=training.teacher is None or training.teacher.num_classes > 0,
        teacher_sees=training.teacher.conversions(training.data_config["input_size"]) if training.teacher else "",
        gmacs=costs,
        answers=training.answers.describe(costs["student"]) if training.answers else "",
        terms=term_weights(training.task),
        train=_split_facts(recipe, splits.train, recipe.train_split, num_classes),
        val=_split_facts(recipe, splits.val, recipe.val_split, None) if splits.val else None,
        probe=_split_facts(recipe, splits.probe, recipe.probe_split, None) if splits.probe else None,
        input_size=tuple(training.data_config["input_size"]),
        updates_per_epoch=training.loader.batches_per_epoch // recipe.grad_accum_steps,
        epochs=training.schedule.num_epochs,
        lr=learning_rate(recipe, recipe.batch_size * accelerator.num_processes),
        hardware=hardware(accelerator),
        folder=folder,
    )


def _split_facts(recipe: Recipe, split: Source, name: str, num_classes: int | None) -> SplitFacts:
    """What the start block shows of a split, which has ``num_classes`` where it does not name them."""
    place = split.folder or f"{recipe.dataset or recipe.data_dir}, split {name}"
    classes = len(split.names) if split.names else num_classes
    return SplitFacts(place=place, images=split.num_samples, classes=classes, columns=split.columns)


def networks_gmacs(training: Training) -> dict[str, float | None]:
    """Billions of multiply-accumulates of both networks for one image."""
    size = tuple(training.data_config["input_size"])
    costs = {"student": gmacs(training.student, size)}
    if training.answers and training.answers.teacher:
        costs["teacher"] = training.answers.teacher.facts.gmacs
    elif teacher := training.teacher:
        costs["teacher"] = gmacs(teacher.model, teacher.input_size(size))
    return costs
