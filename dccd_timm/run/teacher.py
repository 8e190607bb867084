"""The teacher on the validation split, before it teaches: evaluated once for a run, its resumes and its control."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from dccd_timm.atomic import write_with
from dccd_timm.data.sources import Source
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.engine.evaluate import Evaluation, evaluate_together, kept_random_states
from dccd_timm.errors import UserError, logged_failure
from dccd_timm.models.student import started_from
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Recipe
from dccd_timm.report.evidence import FEATURE_IMAGES
from dccd_timm.run.folder import kept_folders
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.versions import hash_of, version_of

_logger = logging.getLogger(__name__)

# In the folder of a run, or of its control, whichever evaluated the teacher.
EVALUATION = "teacher-evaluation.safetensors"
_NAME = "teacher"


def evaluate_teacher(
    recipe: Recipe, splits: Splits, training: Training, folder: Path, accelerator: Accelerator, resumed: bool
) -> None:
    """Evaluate the teacher of a ``training`` on the validation split, unless its run in ``folder`` or the run's control
    did, and refuse a weak one. The generators of random numbers stay as they are. A teacher without a head has no
    accuracy.

    Raises:
        UserError: when the teacher is near chance, or below a pretrained student that has not been ``resumed``.
    """
    if training.teacher is None or not training.teacher.num_classes or training.val is None or splits.val is None:
        return
    key = _key(recipe, splits.val, training, accelerator) if accelerator.is_main_process else ""
    known = _read([*kept_folders(folder), *_answers_folder(training)], key) if key else None
    # the features are those of each rank's own images, and only the main process shows them
    shared: Evaluation | None = broadcast_object_list([known and dataclasses.replace(known, features={})])[0]
    student_top1 = None
    if shared is None:
        networks: dict[str, nn.Module] = {_NAME: training.teacher}
        if not resumed and started_from(recipe, training.student):
            networks["student"] = training.student
        with kept_random_states(accelerator.device):
            found = evaluate_together(
                networks, training.val, accelerator, training.task.create_evaluator, recipe.channels_last,
                feature_images=FEATURE_IMAGES,
            )  # fmt: skip
        assert found is not None  # no signal stops it
        known = found.only(_NAME)
        student_top1 = found.metrics["student"]["top1"] if "student" in networks else None
    training.teacher_evaluation = known or shared
    assert training.teacher_evaluation is not None
    training.teacher_key = "" if shared else key
    fault = _fault(training.teacher_evaluation, as_timm(training.student).num_classes, student_top1)
    if fault:
        _refuse(recipe, training.teacher_evaluation, fault, accelerator)


def _answers_folder(training: Training) -> list[Path]:
    """The folder with the teacher's answers to training views, where there is one."""
    return [training.answers.folder] if training.answers else []


def write_evaluation(training: Training, folder: Path) -> None:
    """Keep what a teacher answered in the ``folder`` of its run, for resumes and the report, and where its answers to
    training views are kept, for runs that do not load it; unless it is kept."""
    evaluation = training.teacher_evaluation
    if evaluation is None or not training.teacher_key:
        return
    for target in (folder, *(_answers_folder(training) if training.answers and training.answers.store.writes else [])):
        _write_evaluation(evaluation, training.teacher_key, target)


def _write_evaluation(evaluation: Evaluation, key: str, folder: Path) -> None:
    tensors = {"target": evaluation.target, "answers": evaluation.answers[_NAME], **evaluation.features}
    metadata = {"key": key, "metrics": evaluation.metrics[_NAME], "skipped": evaluation.skipped}
    texts = {name: json.dumps(value) for name, value in metadata.items()}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with logged_failure("a resume will evaluate the teacher again", folder):
        write_with(folder / EVALUATION, lambda path: safetensors.torch.save_file(contiguous, path, texts))


def near_chance(num_classes: int) -> float:
    """The top-1 in percent below which a classifier hardly knows its classes: twice chance, with few classes 10 points
    above chance, and 5 % from 1,000 classes on."""
    if num_classes >= 1000:
        return 5.0
    return 100 * min(2 / num_classes, 1 / num_classes + 0.1) if num_classes > 1 else 0.0


def _fault(evaluation: Evaluation, num_classes: int, student_top1: float | None) -> str | None:
    """What is wrong with a teacher of this ``evaluation``, beside a pretrained student where there is one."""
    top1, limit = evaluation.metrics[_NAME]["top1"], near_chance(num_classes)
    if top1 < limit:
        return f"near chance for {num_classes} classes (below {limit:.3g} %)"
    if student_top1 is not None and top1 < student_top1:
        return f"below the pretrained student itself ({student_top1:.2f} %)"
    return None


def _refuse(recipe: Recipe, evaluation: Evaluation, fault: str, accelerator: Accelerator) -> None:
    """Stop before a training by a weak teacher, or warn where the recipe allows it."""
    line = (
        f"teacher {recipe.kd_model_name} has a top-1 of {evaluation.metrics[_NAME]['top1']:.2f} % on"
        f" {evaluation.counts['images']} images of split {recipe.val_split}, {fault}"
    )
    if not recipe.allow_weak_teacher:
        raise UserError(
            f"{line}: its normalisation, the order of its classes or its checkpoint is probably wrong;"
            " --allow-weak-teacher trains with it all the same"
        )
    if accelerator.is_main_process:
        _logger.warning("%s", line)


def _key(recipe: Recipe, split: Source, training: Training, accelerator: Accelerator) -> str:
    """A hash of all that the evaluation depends on, the order of its images too."""
    assert training.teacher is not None and training.val is not None
    parts = [
        training.teacher_weights,
        training.teacher.conversions(training.data_config["input_size"]),
        training.teacher.dtype or (torch.float32 if accelerator.mixed_precision == "no" else None),
        accelerator.mixed_precision,
        dict(training.data_config),
        (split.num_samples, split.names, split.indices, split.columns),
        (recipe.dataset, recipe.dataset_revision, recipe.val_split, recipe.input_img_mode),
        _layout(recipe, split, training.val.batch_size, accelerator),
        *map(version_of, split.paths()),
    ]
    return hash_of(parts)


def _layout(recipe: Recipe, split: Source, batch_size: int, accelerator: Accelerator) -> tuple[int, ...]:
    """What the order of the answers depends on: with random access one process has that of the split."""
    if accelerator.num_processes == 1 and isinstance(split, IndexedSource):
        return (1,)
    return accelerator.num_processes, batch_size, recipe.workers


def _read(folders: Sequence[Path], key: str) -> Evaluation | None:
    """What was kept under this ``key`` in one of the ``folders``: of a run, its first control or the run that it
    belongs to, or of answers to training views."""
    for folder in folders:
        try:
            with safetensors.safe_open(folder / EVALUATION, framework="pt") as file:
                texts = file.metadata() or {}
                if json.loads(texts.get("key", "null")) != key:
                    continue
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, safetensors.SafetensorError):
            continue
        target, answers = tensors.pop("target"), tensors.pop("answers")
        metrics, skipped = json.loads(texts["metrics"]), json.loads(texts["skipped"])
        return Evaluation({_NAME: metrics}, target, {_NAME: answers}, tensors, skipped)
    return None
