"""What a run tells: the start-up block, the closing table, report.json and the model card."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from accelerate import Accelerator
from timm.data import resolve_input_data_config
from timm.utils import update_summary
from torch import nn

from dccd_timm.atomic import write_text
from dccd_timm.batch import Progress
from dccd_timm.data.build import build_eval_loader, open_split
from dccd_timm.errors import UserError
from dccd_timm.hub.card import Card
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.guard import guarded
from dccd_timm.models.teacher import TimmTeacher, check_classes, load_teacher
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.parse import OneLineParser
from dccd_timm.report import evidence, pictures

_logger = logging.getLogger(__name__)


def parameters_m(model: nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def start_block(recipe: Recipe, student: nn.Module, teacher: nn.Module | None, facts: dict[str, Any]) -> str:
    """What is about to happen, in a few lines."""
    student_name = ModelName.parse(recipe.model).short
    views, update = recipe.dccd_views, recipe.batch_size * recipe.grad_accum_steps * facts["world"]
    method = recipe.kd_distill_type
    weights = ""
    if method == "dccd":
        weights = f", contrast {recipe.dccd_contrast_weight:g}, difference {recipe.dccd_difference_weight:g}"
    costs = {
        k: "" if not v else f", {v:.3g} GMACs" if v >= 0.1 else f", {1000 * v:.3g} MMACs"
        for k, v in facts["gmacs"].items()
    }
    teacher_line = ""
    if teacher:
        name = ModelName.parse(recipe.kd_model_name or "").short
        teacher_line = f"{name}, {parameters_m(teacher):.3f} M parameters{costs['teacher']}"
    lines = [
        ("student", f"{student_name}, {parameters_m(student):.3f} M parameters{costs['student']}"),
        ("teacher", teacher_line),
        ("method", f"{method}{weights}"),
        ("data", f"{recipe.dataset or recipe.data_dir}: {facts['images']} images, {facts['classes']} classes,"
                 f" {'x'.join(map(str, facts['input_size']))}"),
        ("update", f"{update} images x {views} view{'s' if views != 1 else ''}, {facts['updates_per_epoch']} updates"
                   f" per epoch, {facts['epochs']} epochs, {recipe.opt} at {facts['lr']:.3g}"),
        ("device", f"{facts['world']} x {facts['device'].type}, {facts['precision']}"),
        ("writes to", str(facts["folder"])),
    ]  # fmt: skip
    return "\n".join(f"  {name:<10} {text}" for name, text in lines if text)


def closing_table(report: dict[str, Any]) -> str:
    """Teacher, student and control side by side."""
    rows: list[tuple[str, ...]] = [("", "parameters", "top-1", "top-5", "agrees with teacher")]
    for label in ("teacher", "student", "control"):
        if part := report.get(label):
            agreement = part.get("agreement")
            how = f"{part['name']}, {part['method']}" if part["method"] else part["name"]
            rows.append((
                f"{label} ({how})", f"{part['parameters_m']:.3f} M", f"{part['top1']:.2f} %",
                f"{part['top5']:.2f} %", "" if agreement is None else f"{agreement:.2f} %",
            ))  # fmt: skip
    if not report.get("teacher"):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def describe(model_name: str, method: str | None, model: Any) -> dict[str, Any]:
    """A network's line in the report; a folder's name says little, so such a model goes by its architecture."""
    parsed = ModelName.parse(model_name)
    name = parsed.short
    if parsed.source == "local-dir":
        name = model.pretrained_cfg.get("architecture", name)
    return {"name": name, "method": method, "parameters_m": round(parameters_m(model), 4)}


def finished(folder: Path) -> dict[str, Any] | None:
    """The report of a run that came to its end, or None."""
    path = folder / "report" / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def summarise(folder: Path, progress: Progress, metrics: dict[str, float], with_eval: bool) -> None:
    """A row of summary.csv: timm's columns, each loss part, and views per second; empty where nothing was validated."""
    path = folder / "summary.csv"
    if path.exists():  # rows that a cut run wrote after the state that this one went on from
        head, *rows = path.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) < progress.epoch]
        fresh = path.with_name(".summary.csv.new")
        fresh.write_text("\n".join([head, *kept]) + "\n", encoding="utf-8")
        fresh.replace(path)
    evaluated = {name: metrics.get(name, "") for name in ("loss", "top1", "top5")} if with_eval else None
    train = dict(progress.losses, views_per_second=round(progress.views_per_second, 1))
    update_summary(progress.epoch, train, evaluated, filename=str(path), lr=progress.lr, write_header=not path.exists())
    shown = "  ".join(f"{name} {value:.4g}" for name, value in progress.losses.items())
    judged = f"  top-1 {metrics['top1']:.2f} %" if metrics else ""
    _logger.info("epoch %d  %s  %.0f views/s%s", progress.epoch + 1, shown, progress.views_per_second, judged)


def close(folder: Path, report: dict[str, Any], against: Path | None = None) -> None:
    """Write report.json and curves; the curve to compare with is that of the control, or of run ``against``."""
    (folder / "report").mkdir(exist_ok=True)
    write_text(folder / "report" / "report.json", json.dumps(report, indent=2) + "\n")
    runs = {f"student ({report['method']})": folder / "summary.csv"}
    if control := report.get("control"):
        runs[control["label"]] = (against or folder / "control") / "summary.csv"
    pictures.draw_curves(folder / "report" / "curves.png", runs, report.get("teacher", {}))


def farewell(folder: Path, report: dict[str, Any]) -> None:
    """Print the closing table, and where everything lies."""
    lines = [closing_table(report)] if "top1" in report["student"] else []
    lines.append(
        f"  {folder / 'best'} holds the student: timm.create_model('local-dir:{folder / 'best'}', pretrained=True)"
    )
    print("\n".join([*lines, f"  {folder / 'report'} holds its pictures and report.json"]), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw a finished run's report anew, beside another run when ``--against`` names one."""

    def story(arguments: Sequence[str]) -> None:
        parser = OneLineParser("python -m dccd_timm.report.console", description=main.__doc__)
        parser.add_argument("run", type=Path, help="a finished run's folder")
        parser.add_argument("--against", type=Path, metavar="RUN2", help="a finished run on the same data")
        given = parser.parse_args(arguments)
        again(given.run, given.against)

    guarded(story, argv)


def again(run: Path, against: Path | None) -> dict[str, Any]:
    """Look at the exported student once more, with its teacher and control, or with the student of run ``against``.

    Raises:
        UserError: for a folder without a finished run, or runs that cannot be compared.
    """
    report, recipe = _told(run)
    if control := (finished(run / "control") or {}).get("student"):
        report["control"] = control | {"label": METHODS[control["method"]].student_label}
    if against is not None:
        other, theirs = _told(against)
        if (theirs.dataset, theirs.data_dir, theirs.val_split) != (recipe.dataset, recipe.data_dir, recipe.val_split):
            raise UserError(f"{run} and {against} were judged on different data: nothing to compare")
        report["control"] = other["student"] | {"label": f"{against.name} ({other['method']})"}
    accelerator = start_accelerator(dataclasses.replace(recipe, log_with="none"))
    if recipe.val_split:
        student: Any = reload(run / "best", accelerator)
        classes: int = student.num_classes
        config = resolve_input_data_config(student)
        networks: dict[str, Any] = {"student": student}
        models = {}
        if recipe.kd_model_name:
            models["teacher"] = load_teacher(recipe.kd_model_name, recipe.kd_teacher_checkpoint, classes)
        if report.get("control"):
            models["control"] = reload((against or run / "control") / "best", accelerator)
            check_classes(models["control"], classes, str(against))
        for word, model in models.items():  # whatever normalisation and size they want
            judge = TimmTeacher(model, config["mean"], config["std"], config["input_size"])
            networks[word] = judge.to(accelerator.device)
        split = open_split(recipe, recipe.val_split, is_training=False)
        loader = build_eval_loader(recipe, split, config, classes, accelerator.device)
        label = report.get("control", {}).get("label", "")
        report |= evidence.gather(recipe, run / "report", networks, loader, split.names, accelerator, label)
    close(run, report, against)
    write_text(run / "README.md", Card(run, license=report.get("license")).text())
    farewell(run, report)
    return report


def _told(run: Path) -> tuple[dict[str, Any], Recipe]:
    """Report and settings of a finished run."""
    report = finished(run)
    if report is None or not (run / "best" / "config.json").is_file():
        raise UserError(f"{run} holds no finished run: it has no report/report.json or no best/")
    return report, load_recipe(["-c", str(run / "args.yaml")])


def reload(path: Path, accelerator: Accelerator) -> nn.Module:
    """The exported student, as anyone would load it."""
    return timm.create_model(f"local-dir:{path}", pretrained=True).to(accelerator.device).eval()


if __name__ == "__main__":
    main()
