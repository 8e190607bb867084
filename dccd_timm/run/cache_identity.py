"""What a run's answers belong to, in which form they are kept, and which files their teacher has."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from timm.task import TrainingTask

from dccd_timm.cache.form import Form
from dccd_timm.cache.identity import Belongings, Values
from dccd_timm.data.sources import Source
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.option import option_of
from dccd_timm.task.answered import AnsweredTeacher
from dccd_timm.task.terms import TermTask


def belongings(recipe: Recipe, source: Source, data_config: DataConfig, accelerator: Accelerator) -> Belongings:
    """What an answer depends on, as far as it is known before the teacher is."""
    views: Values = {
        spec.name: getattr(recipe, spec.name) for spec in dataclasses.fields(Recipe) if option_of(spec).views
    }
    views["seed"] = recipe.seed
    views |= {name: data_config[name] for name in ("input_size", "mean", "std", "interpolation")}
    if recipe.reprob or any(view.startswith("near") for view in recipe.dccd_view_aug):
        views["drawn_on"] = accelerator.device.type
    return {
        "data": {"images": source.num_samples, "classes": source.names, "fingerprint": source.fingerprint()},
        "views": views,
        "teacher": {"precision": recipe.kd_teacher_dtype or "default", "mixed precision": accelerator.mixed_precision},
    }


def answer_form(recipe: Recipe, task: TrainingTask, teacher: AnsweredTeacher) -> Form:
    """How answers are kept: logits, and the maps that a term of ``task`` reads.

    Raises:
        UserError: for more logits than there are classes.
    """
    highest = int(recipe.kd_cache_logits) if recipe.kd_cache_logits.isdecimal() else 0
    if highest >= teacher.num_classes:
        raise UserError(
            f"--kd-cache-logits {highest}: the teacher has {teacher.num_classes} classes; give fewer, or float16"
        )
    stages: Sequence[int] = task.teacher_stages if isinstance(task, TermTask) else ()
    maps = []
    if isinstance(task, TermTask) and stages:
        shapes = task.stage_shapes()[1]
        for stage, grid in zip(stages, task.grids, strict=True):
            channels, height, width = shapes[stage]
            pooled = (1, 1) if recipe.kd_cache_map == "pooled" else grid or (height, width)
            maps.append((channels, *pooled))
    temperature = recipe.kd_temperature if highest else 0.0
    return Form(recipe.kd_cache_logits, temperature, teacher.num_classes, recipe.dccd_views, tuple(stages), tuple(maps))


def teacher_options(recipe: Recipe) -> Values:
    """The options that say which teacher it is, and what it sees."""
    names = [spec.name for spec in dataclasses.fields(Recipe) if spec.name.startswith("kd_teacher_")]
    return {name: getattr(recipe, name) for name in ("kd_model_name", *names)}


def hash_files(recipe: Recipe) -> str:
    """A hash of the teacher's files, where they are on this machine; else empty, and its name alone is compared."""
    model = ModelName.parse(recipe.kd_model_name or "")
    place = recipe.kd_teacher_checkpoint or (model.place if model.source == "local-dir" else "")
    path = Path(place)
    if not place or not path.exists():
        return ""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file() and not file.name.startswith("."):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
