"""The teacher of a run: it answers with the data set's classes, or loses its head where nothing reads its logits."""

import shlex
from collections.abc import Sequence

import torch
from torch import nn

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.classes import class_names
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.probed import check_pools
from dccd_timm.models.teacher import check_classes, drop_head, load_teacher
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.recipe.distil import Distil
from dccd_timm.recipe.methods import METHODS
from dccd_timm.run.classes import number_network


def load_run_teacher(
    recipe: Recipe, num_classes: int, names: Sequence[str] | None, main: Recipe | None = None
) -> nn.Module | None:
    """The teacher of a recipe, which answers in the order of the classes ``names``, or has no head; None without one.

    It has none where ``--kd-teacher-probe`` gives it another one, or where the student has none.

    ``main`` is the recipe of the run that a control belongs to: both have the same teacher.

    Raises:
        UserError: for a teacher of other classes, or without a head, whose logits one of both recipes reads.
    """
    name = recipe.kd_model_name
    if name is None:
        return None
    role = "teacher (--kd-model-name)"
    teacher = load_teacher(name, recipe.kd_teacher_checkpoint, num_classes, role, any_classes=True)
    if not num_classes:  # nor does the student have a head
        return drop_head(teacher, name) if as_timm(teacher).num_classes else teacher
    if recipe.kd_teacher_probe:
        check_pools(teacher, name)
        return drop_head(teacher, name) if as_timm(teacher).num_classes else teacher
    if as_timm(teacher).num_classes == num_classes and recipe.kd_teacher_head == "own":
        number_network(teacher, class_names(teacher, recipe.kd_teacher_checkpoint), names, f"teacher {name}")
        return teacher
    for reader in (main, recipe):
        if reader is not None:
            _check_without_head(reader, teacher, num_classes)
    if recipe.kd_cache:
        raise UserError(f"--kd-cache keeps logits, and teacher {name} has no head for these classes: drop it")
    return drop_head(teacher, name) if as_timm(teacher).num_classes else teacher


def _check_without_head(recipe: Recipe, teacher: nn.Module, num_classes: int) -> None:
    """Refuse a recipe that reads the logits of a teacher whose head is none, or not one for the data set's classes."""
    name, method = recipe.kd_model_name, METHODS[recipe.kd_distill_type]
    if "logits" not in method.needs:
        return
    is_dccd, weight = method.name == "dccd", recipe.distill_loss_weight
    if as_timm(teacher).num_classes and recipe.kd_teacher_head == "own" and not (is_dccd and weight == 0):
        check_classes(teacher, num_classes, name or "", _how_to_get_a_teacher(name or ""))
    if not is_dccd:
        raise UserError(
            f"teacher {name} has no head, and {method.name} reads its logits: choose a method that reads its features"
            f" (dccd, {', '.join(m.name for m in METHODS.values() if m.distills and 'logits' not in m.needs)}), or a"
            " teacher with the data set's classes"
        )
    if weight:
        raise UserError(
            f"--distill-loss-weight {weight:g}: teacher {name} has no head, so there are no logits for KD: drop it, or"
            " choose a teacher with the data set's classes"
        )
    if recipe.dccd_difference_weight not in (0, Distil.dccd_difference_weight):
        raise UserError(
            f"--dccd-difference-weight {recipe.dccd_difference_weight:g}: teacher {name} has no head, so there are no"
            " logits whose difference could be compared: drop it"
        )
    if not recipe.dccd_contrast_weight:
        raise UserError(f"teacher {name} has no head, and --dccd-contrast-weight is 0: nothing is left to distil")


def _how_to_get_a_teacher(name: str) -> str:
    """What helps with a teacher of other classes; the commands are without the flags of the data."""
    return (
        f"fine-tune it on this data set first (--model {shlex.quote(name)} --pretrained --kd-distill-type none"
        " --experiment teacher) and distil from that (--kd-model-name local-dir:output/train/teacher/best), or use its"
        " features alone (--kd-distill-type dccd --distill-loss-weight 0)"
    )


def evaluated_teacher(
    recipe: Recipe, teacher: nn.Module, data_config: DataConfig, dtype: torch.dtype | None = None
) -> FrozenTeacher:
    """The teacher beside a student that is trained without it, or beside one that is exported.

    Raises:
        UserError: for images that it does not take.
    """
    mean, std, size = data_config["mean"], data_config["std"], data_config["input_size"]
    try:
        return FrozenTeacher(teacher, mean, std, size, dtype, img_size=recipe.kd_teacher_img_size)
    except ValueError as error:
        raise UserError(one_line(error)) from error
