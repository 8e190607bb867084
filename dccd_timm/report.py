"""What a run tells: the start-up block, the closing table, report.json and the model card."""

import json
import logging
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from timm.utils import update_summary
from torch import nn

from dccd_timm.batch import Progress
from dccd_timm.pictures import draw_curves
from dccd_timm.recipe import Recipe

_logger = logging.getLogger(__name__)


def short_name(model: str | None) -> str:
    """A model's name without source or folders, as it may stand in folder names and cards."""
    return (model or "").rstrip("/").rsplit(":", 1)[-1].rstrip("/").rsplit("/", 1)[-1]


def parameters_m(model: nn.Module) -> float:
    """Parameters in millions."""
    return sum(p.numel() for p in model.parameters()) / 1e6


def start_block(recipe: Recipe, student: nn.Module, teacher: nn.Module | None, facts: dict[str, Any]) -> str:
    """What is about to happen, in a few lines."""
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
        name = short_name(recipe.kd_model_name)
        teacher_line = f"{name}, {parameters_m(teacher):.3f} M parameters{costs['teacher']}"
    lines = [
        ("student", f"{short_name(recipe.model)}, {parameters_m(student):.3f} M parameters{costs['student']}"),
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


def describe(model_name: str | None, method: str | None, model: Any) -> dict[str, Any]:
    """A network's line in the report; a folder's name says little, so such a model goes by its architecture."""
    name = short_name(model_name)
    if (model_name or "").startswith("local-dir:"):
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


def close(folder: Path, recipe: Recipe, report: dict[str, Any]) -> None:
    """Write report.json, curves and card, and print the table."""
    (folder / "report").mkdir(exist_ok=True)
    text = json.dumps(report, indent=2) + "\n"
    (folder / "report" / "report.json").write_text(text, encoding="utf-8")
    runs = {f"student, {report['method']}": folder / "summary.csv"}
    if control := report.get("control"):
        runs = {f"control, {control['method']}": folder / "control" / "summary.csv", **runs}
    draw_curves(folder / "report" / "curves.png", runs, report.get("teacher", {}).get("top1"))
    _write_card(folder, recipe, report)
    if "top1" in report["student"]:
        print(closing_table(report))
    print(f"  {folder / 'best'} holds the student: timm.create_model('local-dir:{folder / 'best'}', pretrained=True)")
    print(f"  {folder / 'report'} holds its pictures and report.json", flush=True)


def _write_card(folder: Path, recipe: Recipe, report: dict[str, Any]) -> None:
    """README.md of the run: the model card, in its simple form."""
    student, teacher = report["student"], report.get("teacher")
    data = short_name(recipe.dataset) or "image folder"
    card_data = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "knowledge-distillation", "dccd"],
        model_name=folder.name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=data,
                dataset_name=data,
                metric_type="accuracy",
                metric_value=round(student["top1"], 2),
            )
        ]
        if "top1" in student
        else None,
    )
    origin = f"distilled by {recipe.kd_distill_type} from {teacher['name']}" if teacher else "trained without a teacher"
    table = f"```\n{closing_table(report)}\n```\n\n" if "top1" in student else ""
    pictures = "\n".join(f"![{p.stem}](report/{p.name})" for p in sorted((folder / "report").glob("*.png")))
    split = recipe.val_split or recipe.train_split
    body = f"""---
{card_data.to_yaml()}
---
# {folder.name}

A {student["name"]} ({student["parameters_m"]:.3f} M parameters), {origin}, trained with dccd-timm.

{table}Epoch {report["best_epoch"] + 1} of {report["epochs"]}, the best by {recipe.eval_metric} on split {split}.

{pictures}

```python
import timm
model = timm.create_model("local-dir:best", pretrained=True).eval()
```
"""
    ModelCard(body).save(folder / "README.md")
