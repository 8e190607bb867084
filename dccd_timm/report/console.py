"""What a run prints: the block at its start, the table and the folders at its end."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dccd_timm.batch import Progress
from dccd_timm.engine.timing import readable_seconds
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report.schema import Hardware, NetworkReport, Report
from dccd_timm.report.summary import readable_term

# Options of the data that train.py and validate.py have in common
_DATA = ("dataset", "data_dir", "dataset_config", "dataset_revision", "class_map", "input_img_mode", "input_key",
         "target_key")  # fmt: skip


@dataclass(kw_only=True)
class SplitFacts:
    """What the start block shows of a split: its folder, or its data set and name; ``classes`` and the ``columns`` of
    images and classes where they are known."""

    place: str
    images: int
    classes: int | None
    columns: tuple[str, str] | None = None


@dataclass(kw_only=True)
class StartFacts:
    """What the start block shows beside the recipe.

    ``gmacs`` are billions of multiply-accumulates for one image by network, None where they cannot be counted;
    ``has_logits`` is false for a teacher without a head; ``teacher_sees`` says what is done to a view before the
    teacher sees it, if anything; ``answers`` describes the folder that keeps its answers, if there is one; ``terms``
    are the weights of the loss terms; ``input_size`` is [C, H, W]; ``columns`` are those of images and classes.
    """

    student: NetworkReport
    teacher: NetworkReport | None
    teacher_sees: str
    has_logits: bool = True
    evaluated: dict[str, int] | None = None
    answers: str = ""
    gmacs: dict[str, float | None]
    terms: dict[str, float]
    train: SplitFacts
    val: SplitFacts | None
    probe: SplitFacts | None = None
    input_size: tuple[int, ...]
    updates_per_epoch: int
    epochs: int
    lr: float
    hardware: Hardware
    folder: Path


def start_block(recipe: Recipe, facts: StartFacts) -> str:
    """What is about to happen, in a few lines."""
    views, world = recipe.dccd_views, facts.hardware.world
    images = recipe.batch_size * recipe.grad_accum_steps * world
    weights = [
        f"{readable_term(name).removesuffix(' loss')} {weight:g}" for name, weight in facts.terms.items() if weight
    ]
    method = METHODS[recipe.kd_distill_type]
    if recipe.is_unlabelled:
        weights = [*weights, "no labels: the student has no head"]
    off = "; kd and difference are off: the teacher has no head" if _lacks_logits(recipe, facts) else ""
    has_loss = method.has_logit_loss and facts.has_logits and recipe.kd_loss_type != "kl"
    loss = [f"{recipe.kd_loss_type} between logits"] if has_loss else []
    size = "x".join(map(str, facts.input_size))
    lines = {
        "teacher": _teacher(facts.teacher, facts) if facts.teacher else "",
        "fed": f"the teacher sees {facts.teacher_sees}" if facts.teacher_sees else "",
        "answers": facts.answers,
        "student": f"{_network(facts.student, facts.gmacs.get('student'))}, sees {size},"
        f" weights: {weights_of(facts.student)}",
        "data": _split(facts.train),
        "validation": _validation(recipe, facts),
        "method": ", ".join([method.name, *loss, *weights]) + off,
        "device": f"{world} x {facts.hardware.device}, {facts.hardware.precision}",
        "update": f"{images} images x {views} view{'s' if views != 1 else ''}, {facts.updates_per_epoch} updates"
        f" per epoch, {facts.epochs} epochs, {recipe.opt} at {facts.lr:.3g}",
        "writes to": str(facts.folder),
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def _validation(recipe: Recipe, facts: StartFacts) -> str:
    if facts.val is None:
        return "none: best/ is the epoch with the lowest training loss"
    if facts.probe is not None:
        return f"{_split(facts.val)}, by its neighbours among those of {_split(facts.probe)}"
    return _split(facts.val) + (", by the loss" if recipe.is_unlabelled else "")


def _lacks_logits(recipe: Recipe, facts: StartFacts) -> bool:
    """Whether the method reads logits that the teacher does not have."""
    return not facts.has_logits and not recipe.is_unlabelled and "logits" in METHODS[recipe.kd_distill_type].needs


def _split(split: SplitFacts) -> str:
    classes = f", {split.classes} classes" if split.classes else ""
    columns = f", columns {split.columns[0]} and {split.columns[1]}" if split.columns else ""
    return f"{split.place}: {split.images} images{classes}{columns}"


def _network(network: NetworkReport, gmacs: float | None) -> str:
    cost = "" if not gmacs else f", {gmacs:.3g} GMACs" if gmacs >= 0.1 else f", {1000 * gmacs:.3g} MMACs"
    return f"{network.name}, {network.parameters_m:.3f} M parameters{cost}"


def _teacher(teacher: NetworkReport, facts: StartFacts) -> str:
    text = _network(teacher, facts.gmacs.get("teacher"))
    if teacher.head == "probe":
        text += ", a linear head on its features"
    if not facts.has_logits:
        return f"{text}, no head: its features are used, and it has no accuracy"
    if facts.evaluated is None or teacher.top1 is None:
        return f"{text}, not evaluated: no validation split"
    skipped = f", {facts.evaluated['skipped']} unreadable" if facts.evaluated["skipped"] else ""
    return f"{text}, top-1 {teacher.top1:.2f} % of {facts.evaluated['images']} images{skipped}"


def weights_of(network: NetworkReport) -> str:
    """Where a network's first weights came from."""
    return network.start.name if network.start else "random"


def epoch_line(
    progress: Progress, epochs: int, metrics: dict[str, float], best: tuple[int, float] | None, seconds: float,
    left: float,
) -> str:  # fmt: skip
    """An epoch of so many ``epochs``, counted from 1: its time, top-1, the ``best`` epoch (from 0) with its top-1, the
    seconds that are ``left``, and, where a narrow terminal may break the line, its losses."""
    parts = [f"epoch {progress.epoch + 1}/{epochs}", readable_seconds(seconds)]
    if "top1" in metrics:
        counts = f" of {metrics['images']} images, {metrics['skipped']} unreadable" if metrics.get("skipped") else ""
        parts.append(f"top-1 {metrics['top1']:.2f} %{counts}")
    if "knn" in metrics:
        parts.append(
            f"k-NN {metrics['knn']:.2f} %  linear probe {metrics['probe']:.2f} % of {metrics['images']} images"
        )
    elif "loss" in metrics and "top1" not in metrics:
        parts.append(f"validation loss {metrics['loss']:.4g}")
    if best and best[0] != progress.epoch:
        parts.append(f"best {best[1]:.2f} % in epoch {best[0] + 1}")
    if progress.epoch + 1 < epochs:
        parts.append(f"{readable_seconds(left)} left")
    parts += [f"{name.removesuffix('_loss')} {value:.4g}" for name, value in progress.losses.items()]
    parts.append(f"{progress.views_per_second:.0f} views/s")
    return "  ".join(parts)


def closing_table(report: Report, control: str = "control") -> str:
    """Teacher, student and ``control`` side by side, which are called so; their numbers are those of a validation."""
    rows: list[tuple[str, ...]] = [("", "parameters", "top-1", "top-5", "agrees with teacher")]
    controls = [(control, network) for network in report.controls]
    for role, network in (("teacher", report.teacher), ("student", report.student), *controls):
        if network:
            name = f"{network.name}, {network.method}" if network.method else network.name
            percents = ("" if v is None else f"{v:.2f} %" for v in (network.top1, network.top5, network.agreement))
            rows.append((f"{role} ({name})", f"{network.parameters_m:.3f} M", *percents))
    if not (report.teacher and report.teacher.classifies):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def print_closing(folder: Path, report: Report, settings: Mapping[str, object] | None = None) -> None:
    """Print the closing table, where to find what the run wrote, and the commands that are usually next.

    ``settings`` are those of the run's args.yaml; without them no command is shown.
    """
    lines = [closing_table(report)] if report.student.top1 is not None else []
    control = report.control
    if lines and control and control.top1 is not None and report.student.top1 is not None:
        gain = report.student.top1 - control.top1
        which = f" ({control.method})" if report.further_controls else ""
        lines.append(f"  gain {gain:+.2f} points of top-1 over the control{which}")
    if lines and report.splits and (split := report.splits.validation):
        missing = f", {split.skipped} more could not be read" if split.skipped else ""
        lines.append(f"  evaluated on {split.images} images of the split {split.name}{missing}")
    for role, network in (("student", report.student), ("teacher", report.teacher)):
        if network and network.knn is not None and network.probe is not None:
            lines.append(f"  {role} ({network.name}): k-NN {network.knn:.2f} %, linear probe {network.probe:.2f} %")
    best = folder / "best"
    lines.append(f"  {best} holds the student: timm.create_model({f'local-dir:{best}'!r}, pretrained=True)")
    lines.append(f"  {folder / 'report'} holds its pictures and report.json")
    if settings:
        lines += [f"  next: {command}" for command in next_commands(folder, settings)]
    print("\n".join(lines), flush=True)


def print_comparison(folder: Path, report: Report) -> None:
    """Print what ``folder`` has of two runs, of which none is a control of the other."""
    print(f"{closing_table(report, 'other')}\n  {folder / 'report'} holds pictures and report.json", flush=True)


def next_commands(folder: Path, settings: Mapping[str, object]) -> list[str]:
    """What validates the student of a run with these ``settings``, where it was validated, and what pushes it."""
    commands = []
    if settings.get("num_classes") == 0:
        data = ["--data-dir", "FOLDER", "--model", f"local-dir:{folder / 'best'}", "--pretrained"]
        return [
            shlex.join(["dccd-timm", "train", *data, "--kd-distill-type", "none"]),
            shlex.join(["dccd-timm", "push", str(folder), "OWNER/NAME"]),
        ]
    if settings.get("val_split"):
        flags = [word for name in _DATA if (value := settings.get(name)) for word in (_flag(name), str(value))]
        size = [word for value in [settings.get("val_num_samples")] if value for word in ("--num-samples", str(value))]
        split = ["--split", str(settings["val_split"])]
        own = [
            word for module in cast(list[str], settings.get("device_modules") or []) for word in ("--import", module)
        ]
        commands.append(shlex.join(["dccd-timm", "validate", str(folder), *own, *flags, *split, *size]))
    return [*commands, shlex.join(["dccd-timm", "push", str(folder), "OWNER/NAME"])]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
