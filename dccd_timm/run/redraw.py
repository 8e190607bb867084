"""Draw the report of a finished run again, beside another run if wanted."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from accelerate import Accelerator
from timm.data import resolve_input_data_config
from timm.task import ClassificationEvaluator

from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.data.sources import open_split
from dccd_timm.engine.evaluate import Evaluation
from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.models.classes import class_names
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.teacher import check_classes
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.report.evidence import evaluate_networks
from dccd_timm.report.schema import NetworkReport, Report, Sensitivity
from dccd_timm.report.sensitivity import SensitivityMeter
from dccd_timm.run.classes import number_network, number_split_for
from dccd_timm.run.finish import control_report, load_exported, write_report
from dccd_timm.run.load_teacher import evaluated_teacher, load_run_teacher
from dccd_timm.run.probe import read_probe
from dccd_timm.run.publisher import Publisher


def redraw(
    folder: Path, against: Path | None, create_publisher: Callable[[Recipe], Publisher], modules: Sequence[str] = ()
) -> Report:
    """Evaluate the exported student of the run in ``folder`` again, with its teacher and its control, or with the
    student of the run ``against``; rewrite redundancy, classes, sensitivity, pictures and card. Metrics stay as they
    are. Beside another run all but the card goes into ``folder``/against-NAME, and the report of ``folder`` stays as
    it is.
    ``modules`` are imported in place of those of the run.

    Raises:
        UserError: for a folder without a finished run, or runs that cannot be compared.
    """
    report, recipe = _read_run(folder)
    recipe = dataclasses.replace(recipe, device_modules=tuple(modules) or recipe.device_modules, log_with="none")
    control_run = against or folder / "control"
    if against is not None:
        report.control, report.further_controls = _other_student(recipe, folder, against), []
    elif control := Report.read(control_run):
        report.control = control_report(control, report)
    accelerator = start_accelerator(recipe)
    evaluation, names = None, None
    if recipe.val_split:
        evaluation, names, report.sensitivity = _evaluate(
            recipe, folder, control_run if report.control else None, accelerator
        )
        if report.control and "teacher" in evaluation.answers:
            report.control.agreement = evaluation.agreement("control", "teacher")
    target = folder / f"against-{against.resolve().name}" if against else None
    write_report(folder, report, evaluation, names, control_run, create_publisher(recipe), target)
    return report


def _read_run(folder: Path) -> tuple[Report, Recipe]:
    """Report and settings of a finished run."""
    report = Report.read(folder)
    if report is None or not (folder / "best" / "config.json").is_file():
        raise UserError(f"{folder} holds no finished run: it has no report/report.json or no best/")
    return report, load_recipe(["-c", str(folder / "args.yaml")])


def _other_student(recipe: Recipe, folder: Path, against: Path) -> NetworkReport:
    """The student of another run as a control."""
    other, theirs = _read_run(against)
    if (theirs.dataset, theirs.data_dir, theirs.val_split) != (recipe.dataset, recipe.data_dir, recipe.val_split):
        raise UserError(f"{folder} and {against} were evaluated on different data: they cannot be compared")
    network = copy.copy(other.student)
    network.label = f"{against.name} ({other.method})"
    return network


def _evaluate(
    recipe: Recipe, folder: Path, control_run: Path | None, accelerator: Accelerator
) -> tuple[Evaluation, list[str] | None, Sensitivity | None]:
    """Evaluate student, teacher and control on the validation split; the names of its classes and the sensitivity to
    minor changes too."""
    student = load_exported(folder / "best", accelerator)
    num_classes = as_timm(student).num_classes
    config = cast(DataConfig, resolve_input_data_config(student))
    names = class_names(student)
    split = open_split(recipe, recipe.val_split, False, recipe.val_num_samples)
    number_split_for(student, names, split, f"split {recipe.val_split}")
    networks = {"student": student}  # the others adapt the images to the normalisation and size of their models
    if (teacher := load_run_teacher(recipe, num_classes, names or split.names)) is not None:
        if (probe := read_probe(folder)) is not None:
            teacher = probe.on(teacher)
        networks["teacher"] = evaluated_teacher(recipe, teacher, config).to(accelerator.device)
    if control_run:
        control = load_exported(control_run / "best", accelerator)
        check_classes(control, num_classes, str(control_run))
        number_network(control, class_names(control), names or split.names, f"control of {folder}")
        adapter = FrozenTeacher(control, config["mean"], config["std"], config["input_size"])
        networks["control"] = adapter.to(accelerator.device)
    rank, batch_size = Rank(accelerator.device), recipe.validation_batch_size
    loader = build_eval_loader(recipe, split, config, num_classes, rank, batch_size)

    def create_evaluator() -> ClassificationEvaluator:
        return ClassificationEvaluator(device=accelerator.device)

    meter = SensitivityMeter(networks, config["mean"], config["std"], accelerator, recipe.seed)
    evaluation = evaluate_networks(recipe, networks, meter.watch(loader), accelerator, create_evaluator)
    return evaluation, split.names, meter.result()
