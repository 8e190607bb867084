"""Recipe -> the task: DCCDTask or one of timm's own, so that every comparison runs in one loop."""

from typing import TypedDict

import torch
from timm.loss import create_classification_loss
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    LogitDistillationTask,
    TokenDistillationTask,
    TrainingTask,
)
from torch import nn

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.recipe import Augment, Distil, Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.recipe.methods import METHODS
from dccd_timm.task.contract import unwrapped
from dccd_timm.task.dccd import DCCDTask
from dccd_timm.task.feature import FeatureTask
from dccd_timm.task.terms import Distillation, Inputs, TermTask


class _Shared(TypedDict):
    """What every task with a teacher takes."""

    criterion: nn.Module
    device: torch.device
    verbose: bool
    distill_loss_weight: float | None
    task_loss_weight: float | None


def build_task(
    recipe: Recipe,
    student: nn.Module,
    teacher: nn.Module | None,
    data_config: DataConfig,
    soft_targets: bool,
    device: torch.device,
    teacher_dtype: torch.dtype | None = None,
) -> TrainingTask:
    """The task of ``recipe.kd_distill_type``, its teacher on ``device`` in ``teacher_dtype``.

    Raises:
        UserError: when the pair cannot work with this method; one line with the cause.
    """
    student.to(device)
    criterion = _criterion(recipe, soft_targets)
    if recipe.kd_distill_type == "none":
        return ClassificationTask(student, criterion, device=device, verbose=False)
    assert teacher is not None
    shared = _Shared(
        criterion=criterion,
        device=device,
        verbose=False,
        distill_loss_weight=recipe.distill_loss_weight,
        task_loss_weight=recipe.task_loss_weight,
    )
    size, mean, std = data_config["input_size"], data_config["mean"], data_config["std"]
    inputs = Inputs(size, mean, std, teacher_dtype, recipe.kd_teacher_img_size)
    try:
        if recipe.kd_distill_type == "dccd":
            return _dccd(recipe, student, teacher, data_config, teacher_dtype, shared)
        if METHODS[recipe.kd_distill_type].has_feature_loss or _needs_own_logit_task(recipe):
            return _term_task(recipe, student, teacher, criterion, inputs, device)
        if not isinstance(teacher, FrozenTeacher):
            teacher = FrozenTeacher(teacher, mean, std, size, teacher_dtype, img_size=recipe.kd_teacher_img_size)
        return _timm_task(recipe, student, teacher.to(device), shared)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(one_line(error)) from error


def _timm_task(distil: Distil, student: nn.Module, teacher: FrozenTeacher, shared: _Shared) -> TrainingTask:
    task = _create_timm_task(distil, student, teacher, shared)
    # the frozen teacher takes the student's images; timm compares both normalisations and waits for the device
    for name in ("student_mean", "student_std"):
        task.register_buffer(name, None)
    return task


def _create_timm_task(
    distil: Distil, student: nn.Module, teacher: FrozenTeacher, shared: _Shared
) -> LogitDistillationTask | FeatureDistillationTask | TokenDistillationTask:
    if distil.kd_distill_type == "logit":
        return LogitDistillationTask(
            student, teacher, loss_type=distil.kd_loss_type, temperature=distil.kd_temperature, **shared
        )
    if distil.kd_distill_type == "feature":
        _check_feature_dims(distil, student, teacher)
        return FeatureDistillationTask(
            student,
            teacher,
            student_feature_dim=distil.kd_student_feature_dim,
            teacher_feature_dim=distil.kd_teacher_feature_dim,
            **shared,
        )
    return TokenDistillationTask(
        student, teacher, distill_type=distil.kd_token_distill_type, temperature=distil.kd_temperature, **shared
    )


def _check_feature_dims(distil: Distil, student: nn.Module, teacher: FrozenTeacher) -> None:
    """Refuse widths of features that are not the networks'."""
    named = {"student": distil.kd_student_feature_dim, "teacher": distil.kd_teacher_feature_dim}
    for name, network in (("student", student), ("teacher", teacher)):
        width = getattr(network, "head_hidden_size", None) or getattr(network, "num_features", None)
        if named[name] and width and named[name] != width:
            raise UserError(f"--kd-{name}-feature-dim {named[name]}: the {name}'s features are {width} wide; drop it")


def _needs_own_logit_task(distil: Distil) -> bool:
    """Whether timm's task for logits lacks what is asked for."""
    return distil.kd_distill_type == "logit" and (distil.kd_loss_type != "kl" or distil.kd_warmup_epochs > 0)


def _term_task(
    distil: Distil, student: nn.Module, teacher: nn.Module, criterion: nn.Module, inputs: Inputs, device: torch.device
) -> TermTask:
    distillation, method = _distillation(distil), distil.kd_distill_type
    if method == "logit":
        return TermTask(student, teacher, criterion, None, distillation, inputs, device=device, verbose=False)
    stages = distil.kd_feature_stages
    return FeatureTask(student, teacher, method, criterion, stages, distillation, inputs, device=device, verbose=False)


def _dccd(
    distil: Distil,
    student: nn.Module,
    teacher: nn.Module,
    data_config: DataConfig,
    teacher_dtype: torch.dtype | None,
    shared: _Shared,
) -> DCCDTask:
    return DCCDTask(
        student,
        teacher,
        views=distil.dccd_views,
        temperature=distil.kd_temperature,
        loss_type=distil.kd_loss_type,
        loss_kwargs=_loss_kwargs(distil, distil.kd_loss_type),
        warmup_epochs=distil.kd_warmup_epochs,
        contrast_loss_weight=distil.dccd_contrast_weight,
        contrast_temperature=distil.dccd_contrast_temperature,
        contrast_where=distil.dccd_contrast_where,
        contrast_stages=distil.dccd_contrast_stages,
        contrast_direction=distil.dccd_contrast_direction,
        contrast_targets=distil.dccd_contrast_targets,
        contrast_negatives=distil.dccd_contrast_negatives,
        contrast_scope=distil.dccd_contrast_scope,
        difference_loss_weight=distil.dccd_difference_weight,
        difference_temperature=distil.dccd_difference_temperature,
        difference_form=distil.dccd_difference_loss,
        difference_views=distil.dccd_difference_views,
        input_size=data_config["input_size"],
        input_mean=data_config["mean"],
        input_std=data_config["std"],
        teacher_img_size=distil.kd_teacher_img_size,
        teacher_dtype=teacher_dtype,
        **shared,
    )


def _distillation(distil: Distil) -> Distillation:
    """The loss between logits of the method ``logit``, or the loss of a feature method, with its weights."""
    of_logits = distil.kd_distill_type == "logit"
    return Distillation(
        loss_type=distil.kd_loss_type if of_logits else "kl",
        loss_kwargs=_loss_kwargs(distil, distil.kd_loss_type if of_logits else distil.kd_distill_type),
        temperature=distil.kd_temperature,
        distill_loss_weight=distil.distill_loss_weight,
        task_loss_weight=distil.task_loss_weight,
        warmup_epochs=distil.kd_warmup_epochs,
    )


def _loss_kwargs(distil: Distil, loss: str) -> dict[str, float]:
    """The options of one loss, ``kd_<loss>_<name>``, by the names of the loss's parameters."""
    prefix = f"kd_{loss}_"
    return {name.removeprefix(prefix): value for name, value in vars(distil).items() if name.startswith(prefix)}


def term_weights(task: TrainingTask) -> dict[str, float]:
    """The weight of each part of a task's loss, by the part's name in the task's output."""
    if isinstance(task, TermTask):
        return task.term_weights
    if isinstance(task, LogitDistillationTask | FeatureDistillationTask):
        return {"task_loss": task.task_loss_weight, "kd_loss": task.distill_loss_weight}
    if isinstance(task, TokenDistillationTask):
        return {"task_loss": task.task_loss_weight, "distill_loss": task.distill_loss_weight}
    return {"task_loss": 1.0}


def teacher_of(task: TrainingTask) -> FrozenTeacher | None:
    """The teacher of a task that :func:`build_task` made, whatever has been compiled; None without one."""
    if isinstance(task, TermTask):
        return task.teacher
    if isinstance(task, LogitDistillationTask | FeatureDistillationTask | TokenDistillationTask):
        teacher = unwrapped(task.teacher.model)
        assert isinstance(teacher, FrozenTeacher)
        return teacher
    return None


def replace_teacher(task: TrainingTask, teacher: FrozenTeacher) -> None:
    """Give ``teacher`` the place of the one that :func:`teacher_of` finds."""
    if isinstance(task, TermTask):
        task.teacher = teacher
    elif isinstance(task, LogitDistillationTask | FeatureDistillationTask | TokenDistillationTask):
        task.teacher.model = teacher


def _criterion(augment: Augment, soft_targets: bool) -> nn.Module:
    """timm's criterion; mixup and cutmix bring soft targets that are smoothed already."""
    if augment.bce_loss:
        return create_classification_loss(
            "bce",
            smoothing=augment.smoothing,
            soft_targets=soft_targets,
            bce_target_thresh=augment.bce_target_thresh,
            bce_sum=augment.bce_sum,
            pos_weight=augment.bce_pos_weight,
        )
    return create_classification_loss("ce", smoothing=augment.smoothing, soft_targets=soft_targets)
