"""What a run prints: the block at its start, the table and the folders at its end."""

from dataclasses import dataclass
from pathlib import Path

from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report.schema import Hardware, NetworkReport, Report
from dccd_timm.report.summary import readable_term


@dataclass(kw_only=True)
class StartFacts:
    """What the start block shows beside the recipe.

    ``gmacs`` are billions of multiply-accumulates for one image by network, None where they cannot be counted;
    ``teacher_sees`` says what is done to a view before the teacher sees it, if anything; ``terms`` are the weights of
    the loss terms; ``input_size`` is [C, H, W]; ``columns`` are those of images and classes.
    """

    student: NetworkReport
    teacher: NetworkReport | None
    teacher_sees: str
    evaluated: dict[str, int] | None = None
    gmacs: dict[str, float | None]
    terms: dict[str, float]
    images: int | None
    classes: int
    input_size: tuple[int, ...]
    updates_per_epoch: int
    epochs: int
    lr: float
    hardware: Hardware
    folder: Path
    columns: tuple[str, str] | None = None


def start_block(recipe: Recipe, facts: StartFacts) -> str:
    """What is about to happen, in a few lines."""
    views, world = recipe.dccd_views, facts.hardware.world
    images = recipe.batch_size * recipe.grad_accum_steps * world
    weights = [
        f"{readable_term(name).removesuffix(' loss')} {weight:g}" for name, weight in facts.terms.items() if weight
    ]
    method = METHODS[recipe.kd_distill_type]
    loss = [f"{recipe.kd_loss_type} between logits"] if method.has_logit_loss and recipe.kd_loss_type != "kl" else []
    size = "x".join(map(str, facts.input_size))
    columns = f", columns {facts.columns[0]} and {facts.columns[1]}" if facts.columns else ""
    lines = {
        "student": f"{_network(facts.student, facts.gmacs.get('student'))}, weights: {weights_of(facts.student)}",
        "teacher": _teacher(facts.teacher, facts) if facts.teacher else "",
        "fed": f"the teacher sees {facts.teacher_sees}" if facts.teacher_sees else "",
        "method": ", ".join([method.name, *loss, *weights]),
        "data": f"{recipe.dataset or recipe.data_dir}: {facts.images} images, {facts.classes} classes, {size}{columns}",
        "update": f"{images} images x {views} view{'s' if views != 1 else ''}, {facts.updates_per_epoch} updates"
        f" per epoch, {facts.epochs} epochs, {recipe.opt} at {facts.lr:.3g}",
        "device": f"{world} x {facts.hardware.device}, {facts.hardware.precision}",
        "writes to": str(facts.folder),
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def _network(network: NetworkReport, gmacs: float | None) -> str:
    cost = "" if not gmacs else f", {gmacs:.3g} GMACs" if gmacs >= 0.1 else f", {1000 * gmacs:.3g} MMACs"
    return f"{network.name}, {network.parameters_m:.3f} M parameters{cost}"


def _teacher(teacher: NetworkReport, facts: StartFacts) -> str:
    text = _network(teacher, facts.gmacs.get("teacher"))
    if facts.evaluated is None or teacher.top1 is None:
        return f"{text}, not evaluated: no validation split"
    skipped = f", {facts.evaluated['skipped']} unreadable" if facts.evaluated["skipped"] else ""
    return f"{text}, top-1 {teacher.top1:.2f} % of {facts.evaluated['images']} images{skipped}"


def weights_of(network: NetworkReport) -> str:
    """Where a network's first weights came from."""
    return network.start.name if network.start else "random"


def closing_table(report: Report) -> str:
    """Teacher, student and control side by side; the report's numbers are those of a validation."""
    rows: list[tuple[str, ...]] = [("", "parameters", "top-1", "top-5", "agrees with teacher")]
    for role, network in (("teacher", report.teacher), ("student", report.student), ("control", report.control)):
        if network:
            name = f"{network.name}, {network.method}" if network.method else network.name
            percents = ("" if v is None else f"{v:.2f} %" for v in (network.top1, network.top5, network.agreement))
            rows.append((f"{role} ({name})", f"{network.parameters_m:.3f} M", *percents))
    if not report.teacher:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def print_closing(folder: Path, report: Report) -> None:
    """Print the closing table, and where to find what the run wrote."""
    lines = [closing_table(report)] if report.student.top1 is not None else []
    if lines and report.splits and (split := report.splits.validation):
        missing = f", {split.skipped} more could not be read" if split.skipped else ""
        lines.append(f"  evaluated on {split.images} images of the split {split.name}{missing}")
    best = folder / "best"
    lines.append(f"  {best} holds the student: timm.create_model('local-dir:{best}', pretrained=True)")
    print("\n".join([*lines, f"  {folder / 'report'} holds its pictures and report.json"]), flush=True)
