"""Recipe -> the task: DCCDTask or one of timm's own, all in one form, so that every comparison runs in one loop."""

from typing import Any

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
from dccd_timm.models.teacher import TimmTeacher
from dccd_timm.recipe import Recipe
from dccd_timm.task.dccd import DCCDTask


def build_task(
    recipe: Recipe,
    student: nn.Module,
    teacher: nn.Module | None,
    data_config: dict[str, Any],
    soft_targets: bool,
    device: torch.device,
    teacher_dtype: torch.dtype | None = None,
) -> TrainingTask:
    """The task of ``recipe.kd_distill_type``, its teacher on ``device`` in ``teacher_dtype``.

    Raises:
        UserError: when the pair cannot work with this method; one line with the cause.
    """
    student.to(device)
    method = recipe.kd_distill_type
    shared: dict[str, Any] = dict(criterion=_criterion(recipe, soft_targets), device=device, verbose=False)
    if method == "none":
        return ClassificationTask(student, **shared)
    assert teacher is not None
    shared |= dict(distill_loss_weight=recipe.distill_loss_weight, task_loss_weight=recipe.task_loss_weight)
    try:
        if method == "dccd":
            return _dccd(recipe, student, teacher, data_config, shared | dict(teacher_dtype=teacher_dtype))
        timm_teacher = TimmTeacher(
            teacher, data_config["mean"], data_config["std"], data_config["input_size"], teacher_dtype
        )
        timm_teacher.to(device)
        if method == "logit":
            return LogitDistillationTask(
                student, timm_teacher, loss_type=recipe.kd_loss_type, temperature=recipe.kd_temperature, **shared
            )
        if method == "feature":
            return FeatureDistillationTask(
                student,
                timm_teacher,
                student_feature_dim=recipe.kd_student_feature_dim,
                teacher_feature_dim=recipe.kd_teacher_feature_dim,
                **shared,
            )
        return TokenDistillationTask(
            student,
            timm_teacher,
            distill_type=recipe.kd_token_distill_type,
            temperature=recipe.kd_temperature,
            **shared,
        )
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(one_line(error)) from error


def term_weights(task: TrainingTask) -> dict[str, float]:
    """The weight of each loss term, by the term's name in the task's output."""
    if isinstance(task, DCCDTask):
        return {
            "task_loss": task.task_loss_weight,
            "kd_loss": task.distill_loss_weight,
            "contrast_loss": task.contrast_loss_weight,
            "difference_loss": task.difference_loss_weight,
        }
    weights = {"task_loss": getattr(task, "task_loss_weight", 1.0)}
    if isinstance(task, LogitDistillationTask | FeatureDistillationTask | TokenDistillationTask):
        name = "distill_loss" if isinstance(task, TokenDistillationTask) else "kd_loss"
        weights[name] = task.distill_loss_weight
    return weights


def _dccd(
    recipe: Recipe, student: nn.Module, teacher: nn.Module, data_config: dict[str, Any], shared: dict[str, Any]
) -> DCCDTask:
    return DCCDTask(
        student,
        teacher,
        views=recipe.dccd_views,
        temperature=recipe.kd_temperature,
        contrast_loss_weight=recipe.dccd_contrast_weight,
        contrast_temperature=recipe.dccd_contrast_temperature,
        contrast_where=recipe.dccd_contrast_where,
        contrast_stages=recipe.dccd_contrast_stages,
        contrast_direction=recipe.dccd_contrast_direction,
        contrast_targets=recipe.dccd_contrast_targets,
        contrast_negatives=recipe.dccd_contrast_negatives,
        contrast_scope=recipe.dccd_contrast_scope,
        difference_loss_weight=recipe.dccd_difference_weight,
        difference_temperature=recipe.dccd_difference_temperature,
        difference_form=recipe.dccd_difference_loss,
        difference_views=recipe.dccd_difference_views,
        input_size=data_config["input_size"],
        input_mean=data_config["mean"],
        input_std=data_config["std"],
        **shared,
    )


def _criterion(recipe: Recipe, soft_targets: bool) -> nn.Module:
    """timm's criterion; mixup and cutmix bring soft targets that are smoothed already."""
    if recipe.bce_loss:
        return create_classification_loss(
            "bce",
            smoothing=recipe.smoothing,
            soft_targets=soft_targets,
            bce_target_thresh=recipe.bce_target_thresh,
            bce_sum=recipe.bce_sum,
            pos_weight=recipe.bce_pos_weight,
        )
    return create_classification_loss("ce", smoothing=recipe.smoothing, soft_targets=soft_targets)
