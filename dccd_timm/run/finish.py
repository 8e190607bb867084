"""What follows the last epoch: the evaluation of the best student, report, pictures and card."""

import copy
import logging
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import Evaluation, has_features
from dccd_timm.errors import logged_failure
from dccd_timm.models.load import create, origin
from dccd_timm.models.student import started_from
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.report.console import print_closing, print_comparison
from dccd_timm.report.evidence import evaluate_networks, gather_evidence
from dccd_timm.report.pictures import Evidence, draw_pictures
from dccd_timm.report.schema import (
    NAMED,
    Hardware,
    NetworkReport,
    Origin,
    Report,
    SettingsChange,
    SplitReport,
    SplitReports,
)
from dccd_timm.report.sensitivity import SensitivityMeter
from dccd_timm.run.best import Best
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.publisher import Publisher
from dccd_timm.run.score import score_features
from dccd_timm.run.settings import describe, read_settings
from dccd_timm.task.answered import AnsweredTeacher
from dccd_timm.task.build import term_weights

_logger = logging.getLogger(__name__)


def finish(
    recipe: Recipe,
    splits: Splits,
    training: Training,
    folder: Path,
    accelerator: Accelerator,
    report: Report,
    controls: Sequence[Report],
    publisher: Publisher,
) -> Report:
    """Evaluate the exported best student, reloaded by timm alone, beside its teacher and its first control
    (``controls`` are the reports of all); complete ``report`` and write it with pictures and card."""
    accelerator.wait_for_everyone()
    student = load_exported(folder / "best", accelerator)
    networks: dict[str, nn.Module] = {"student": student}
    if training.teacher is not None:
        networks["teacher"] = training.teacher
    report.control = control_report(controls[0], report) if controls else None
    further = [control_report(control, report) for control in controls[1:]]
    report.further_controls = [control for control in further if control]
    if report.control:
        networks["control"] = load_exported(folder / "control" / "best", accelerator)
    evaluation = None
    if training.val is not None:
        config = training.data_config
        loaded = _loaded(networks, folder)
        meter = SensitivityMeter(loaded, config["mean"], config["std"], accelerator, recipe.seed)
        evaluation = _evaluate(recipe, networks, training, meter.watch(training.val), accelerator)
        report.sensitivity = meter.result()
    report.student = student_report(recipe, student, training.student)
    report.teacher = teacher_report(recipe, training)
    report.hardware = hardware(accelerator)
    if evaluation is not None:
        add_validation(report, recipe.val_split, evaluation)
        if recipe.is_unlabelled:
            _add_scores(recipe, training, networks, report, accelerator)
        else:
            add_metrics(report.student, "student", evaluation)
        if report.teacher and "teacher" in evaluation.metrics:
            add_metrics(report.teacher, "teacher", evaluation)
    if accelerator.is_main_process:
        write_report(folder, report, evaluation, splits.train.names, folder / "control", publisher)
    accelerator.wait_for_everyone()
    return report


def _loaded(networks: dict[str, nn.Module], folder: Path) -> dict[str, nn.Module]:
    """``networks`` without a teacher whose answers were all read, so that it was never loaded."""
    teacher = networks.get("teacher")
    if not isinstance(teacher, AnsweredTeacher) or teacher.loaded is not None:
        return networks
    again = f"dccd-timm report {shlex.quote(str(folder))}"
    _logger.info("the teacher was not loaded, so the report has no sensitivity: `%s` loads it and adds it", again)
    return {name: network for name, network in networks.items() if network is not teacher}


def _add_scores(
    recipe: Recipe, training: Training, networks: dict[str, nn.Module], report: Report, accelerator: Accelerator
) -> None:
    """Add what the features of student and teacher are worth on the labelled splits, where there are any."""
    for name, network in (("student", report.student), ("teacher", report.teacher)):
        if training.probe is not None and network is not None and has_features(networks[name]):
            found = score_features(recipe, training, accelerator, networks[name])
            network.knn, network.probe = found["knn"], found["probe"]


def _evaluate(
    recipe: Recipe, networks: dict[str, nn.Module], training: Training, val: Iterable[Batch], accelerator: Accelerator
) -> Evaluation:
    """Evaluate ``networks``; the teacher's answers are those from before the training, if the images are the same."""
    known, create_evaluator = training.teacher_evaluation, training.task.create_evaluator
    if known is not None:
        others = {name: network for name, network in networks.items() if name != "teacher"}
        evaluation = evaluate_networks(recipe, others, val, accelerator, create_evaluator)
        if torch.equal(evaluation.target, known.target):
            return evaluation.joined(known)
    return evaluate_networks(recipe, networks, val, accelerator, create_evaluator)


def write_report(
    folder: Path,
    report: Report,
    evaluation: Evaluation | None,
    names: list[str] | None,
    control_run: Path,
    publisher: Publisher,
    target: Path | None = None,
) -> None:
    """Write report.json, its pictures and the card into the ``folder`` of a run, and print the closing table.

    ``names`` are those of the classes; ``control_run`` is the folder of the run that the report's control comes from,
    where it has one. With ``target`` the report goes there and no card is written: it compares ``folder`` with a run
    that is no control of it. Only report.json is needed to complete a run: an error in anything else is a warning.
    """
    summaries = {f"student ({report.method})": folder / "summary.csv"}
    if report.control:
        summaries[report.control.label or "control"] = control_run / "summary.csv"
    evidence = Evidence(report, summaries)
    again = f"the training is complete, and `dccd-timm report {shlex.quote(str(folder))}` tries again"
    with logged_failure(f"the report lacks channels and classes; {again}", folder):
        evidence = gather_evidence(report, summaries, evaluation, names)
    out = target or folder
    out.mkdir(exist_ok=True)
    report.write(out)
    with logged_failure(f"no pictures; {again}", folder):
        draw_pictures(out, evidence)
    if target is not None:
        print_comparison(out, report)
        return
    with logged_failure(f"no model card; {again}", folder):
        publisher.write_card(folder)
    with logged_failure("no closing table", folder):
        is_control = (folder.parent / "args.yaml").is_file()
        print_closing(folder, report, {} if is_control else read_settings(folder))


def load_exported(path: Path, accelerator: Accelerator) -> nn.Module:
    """The exported student, as anyone would load it."""
    return create(f"local-dir:{path}", "exported student", pretrained=True).to(accelerator.device).eval()


def student_report(recipe: Recipe, student: nn.Module, initial: nn.Module) -> NetworkReport:
    """The student without metrics; ``initial`` is the network that was trained, which knows where it started."""
    start = started_from(recipe, initial)
    report = _describe(recipe.model, student, sum(p.numel() for p in student.parameters()))
    report.method = recipe.kd_distill_type
    report.head = "none" if recipe.is_unlabelled else None
    report.start = Origin.from_json(start) if start else None
    return report


def teacher_report(recipe: Recipe, training: Training) -> NetworkReport | None:
    """The teacher without metrics, and where its weights come from; None without one."""
    if training.teacher is None or recipe.kd_model_name is None:
        return None
    if isinstance(training.teacher, AnsweredTeacher) and training.teacher.loaded is None:
        return NetworkReport.from_json(training.teacher.facts.network)
    model = training.teacher.model
    source = origin(recipe.kd_model_name, model, pretrained=not recipe.kd_teacher_checkpoint)
    network = _describe(recipe.kd_model_name, model, training.teacher.num_parameters)
    network.head = "probe" if recipe.kd_teacher_probe else None if training.teacher.num_classes else "none"
    return NetworkReport.from_json(source | network.to_json())


def control_report(control: Report, report: Report) -> NetworkReport | None:
    """The student of a control run, for another run's ``report``; None where both were not trained alike."""
    if difference := _difference(control, report):
        _logger.warning("the student is not compared with its control: %s", difference)
        return None
    network = copy.copy(control.student)
    network.label = METHODS[control.method].student_label(control.loss_type)
    return network


def add_validation(report: Report, split: str, evaluation: Evaluation) -> None:
    """Add how many images of the ``split`` the metrics are from, and which could not be read."""
    report.splits = report.splits or SplitReports()
    report.splits.validation = SplitReport(name=split, **evaluation.counts)
    report.skipped_images += evaluation.counts["skipped"]
    report.skipped_first = report.skipped_first + [f"{split}: {name}" for name in evaluation.skipped][:NAMED]


def _difference(control: Report, report: Report) -> str | None:
    """What makes two trainings no fair comparison."""
    if control.epochs != report.epochs:
        return f"it was trained for {control.epochs} epochs, the student for {report.epochs}"
    theirs, ours = (_changed_settings(run.changes) for run in (control, report))
    if theirs != ours:
        changes = {name: values for run in (theirs, ours) for change in run for name, values in change.items()}
        return f"settings were changed in one of both trainings ({describe(changes)})"
    return None


def _changed_settings(changes: list[SettingsChange]) -> list[dict[str, list[object]]]:
    """Changes of settings but for the number of epochs, which both trainings reached."""
    found = [{name: values for name, values in change.settings.items() if name != "epochs"} for change in changes]
    return [change for change in found if change]


def add_metrics(network: NetworkReport, name: str, evaluation: Evaluation) -> None:
    """Add what ``evaluation`` measured of the network that it calls ``name``."""
    metrics = evaluation.metrics[name]
    network.loss, network.top1, network.top5 = metrics["loss"], metrics["top1"], metrics["top5"]
    if name != "teacher" and "teacher" in evaluation.answers:
        network.agreement = evaluation.agreement(name, "teacher")


def _describe(name: str, model: nn.Module, num_parameters: int) -> NetworkReport:
    """Name and size; the name of a folder says little, so such a model goes by its architecture."""
    parsed = ModelName.parse(name)
    architecture = as_timm(model).pretrained_cfg.get("architecture", parsed.short)
    shown = architecture if parsed.source == "local-dir" else parsed.short
    return NetworkReport(name=str(shown), parameters_m=num_parameters / 1e6)


def push_interim(recipe: Recipe, training: Training, folder: Path, best: Best, publisher: Publisher) -> None:
    """Push the best student of a training that continues."""
    report = Report(
        method=recipe.kd_distill_type,
        loss_type=recipe.kd_loss_type,
        terms=term_weights(training.task),
        views=recipe.dccd_views,
        epochs=training.schedule.num_epochs,
        best_epoch=best.epoch,
        complete=False,
        student=student_report(recipe, training.student, training.student),
        teacher=teacher_report(recipe, training),
    )
    metrics = dict(best.metrics)
    if "images" in metrics:
        counts = {name: int(metrics.pop(name)) for name in ("images", "skipped")}
        report.splits = SplitReports(validation=SplitReport(name=recipe.val_split, **counts))
    for name, value in metrics.items():
        setattr(report.student, name, value)
    publisher.push_interim(folder, report)


def hardware(accelerator: Accelerator) -> Hardware:
    """What a run runs on."""
    precision = {"fp16": "amp float16", "bf16": "amp bfloat16"}.get(accelerator.mixed_precision, "float32")
    return Hardware(world=accelerator.num_processes, device=accelerator.device.type, precision=precision)
