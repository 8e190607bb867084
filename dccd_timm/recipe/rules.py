"""Rules that hold between settings: what is decided for the user, what contradicts, what would have no effect."""

import contextlib
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from dccd_timm.recipe.fields import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.views import difference_pair, plan_views

Values = dict[str, Any]


def defaults() -> Values:
    """Every setting's default."""
    return {f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(Recipe)}


def resolve(given: Values) -> Values:
    """All settings of a run: ``given`` over the defaults, "decide for me" decided, dead words set to their default."""
    values = defaults() | given
    values["kd_distill_type"] = _method(values)
    if values["log_wandb"] and values["log_with"] == "none":
        values["log_with"] = "wandb"
    if values["dccd_views"] is None:
        words = len(values["dccd_view_aug"])
        values["dccd_views"] = words if words > 1 else 2 if values["kd_distill_type"] == "dccd" else 1
    if values["dccd_difference_views"] is None and not _dead_reason("dccd_difference_views", values):
        with contextlib.suppress(ValueError):  # said by contradictions()
            values["dccd_difference_views"] = difference_pair(plan_views(values["dccd_view_aug"], values["dccd_views"]))
    if values["in_chans"] is None:
        values["in_chans"] = values["input_size"][0] if values["input_size"] else 3
    for name in given:
        if _dead_reason(name, values):
            values[name] = defaults()[name]
    return values


def dead_knobs(values: Values, names: set[str]) -> list[str]:
    """One line for each of ``names`` whose value differs from its default and would change nothing."""
    full = defaults() | values
    full["kd_distill_type"] = _method(full)
    full["log_with"] = "wandb" if full["log_wandb"] else full["log_with"]
    lines = []
    for name in sorted(names):
        reason = _dead_reason(name, full)
        if reason and full[name] != defaults()[name]:
            lines.append(f"{name} has no effect: {reason}")
    return lines


def has_effect(name: str, values: Values) -> bool:
    """Whether a setting changes anything beside ``values``."""
    return _dead_reason(name, defaults() | values) is None


def contradictions(values: Values) -> list[str]:
    """One line for each pair of settings that cannot hold together, after :func:`resolve`."""
    method, views = values["kd_distill_type"], values["dccd_views"]
    rules = [
        (
            METHODS[method].distills and not values["kd_model_name"],
            f"kd_distill_type {method} needs a teacher: set kd_model_name",
        ),
        (
            method == "dccd" and values["dccd_difference_weight"] > 0 and views < 2,
            f"dccd_difference_weight {values['dccd_difference_weight']:g} needs two views of an image: set dccd_views"
            " to 2 or the weight to 0",
        ),
        (
            method == "dccd" and values["dccd_difference_weight"] > 0 and views >= 2
            and not _is_pair(values["dccd_difference_views"] or (0, 1), views),
            f"dccd_difference_views {values['dccd_difference_views']} must be two different views below {views}",
        ),
        (
            values["resplit"] and views < 2,
            "resplit leaves the first of several views unerased: set dccd_views to 2 or more",
        ),
        (
            _mixing(values) and values["batch_size"] % 2 == 1,
            f"mixup and cutmix pair images: batch_size {values['batch_size']} must be even",
        ),
        (
            bool(values["kd_teacher_checkpoint"]) and ModelName.parse(values["kd_model_name"] or "").brings_weights,
            f"kd_teacher_checkpoint goes with a plain timm name; {values['kd_model_name']} brings its own weights",
        ),
        (
            values["resume"] == "auto" and not values["experiment"],
            "resume auto needs --experiment, which names the run's folder",
        ),
        (
            values["input_size"] is not None and values["in_chans"] != values["input_size"][0],
            f"in_chans {values['in_chans']} contradicts input_size {values['input_size']}",
        ),
        (
            values["img_size"] is not None and values["input_size"] is not None
            and (values["img_size"],) * 2 != values["input_size"][1:],
            f"img_size {values['img_size']} contradicts input_size {values['input_size']}: give one of them",
        ),
        (
            values["log_wandb"] and values["log_with"] != "wandb",
            f"log_wandb contradicts log_with {values['log_with']}: give one of them",
        ),
        (
            values["split_bn"] and views < 2,
            "split_bn takes the statistics of each of several views: set dccd_views to 2 or more",
        ),
        (
            METHODS[method].distills and values["dccd_control"] == method,
            f"dccd_control {method} is the method itself: choose another one to compare with",
        ),
    ]  # fmt: skip
    try:
        plan_views(values["dccd_view_aug"], views)
    except ValueError as error:
        rules.append((True, f"dccd_view_aug: {error}"))
    for name in ("mean", "std"):
        value = values[name]
        wrong = value is not None and len(value) not in (1, values["in_chans"])
        rules.append((wrong, f"{name} needs 1 or {values['in_chans']} values, one per channel, got {value}"))
    return [line for broken, line in rules if broken]


def _method(values: Values) -> str:
    """timm trains without distillation when no teacher is named, whatever its default type says."""
    if values["kd_distill_type"] == "logit" and not values["kd_model_name"]:
        return "none"
    return values["kd_distill_type"]


def _is_pair(pair: tuple[int, ...], views: int) -> bool:
    return pair[0] != pair[1] and all(0 <= v < views for v in pair)


def _mixing(v: Values) -> bool:
    return v["mixup"] > 0 or v["cutmix"] > 0 or v["cutmix_minmax"] is not None


def _not_method(*methods: str) -> Callable[[Values], bool]:
    """Neither the run's method nor its control is one of ``methods``."""
    return lambda v: v["kd_distill_type"] not in methods and v["dccd_control"] not in methods


def _without(name: str) -> Callable[[Values], bool]:
    return lambda v: not v[name]


_DISTILLS = tuple(name for name, method in METHODS.items() if method.distills)
_READS_LOGITS = tuple(name for name, method in METHODS.items() if "logits" in method.needs)
_OFF_DCCD = (_not_method("dccd"), "only kd_distill_type dccd reads it")
_OFF_CONTRAST = (lambda v: v["dccd_contrast_weight"] == 0, "dccd_contrast_weight is 0")
_OFF_DIFFERENCE = (lambda v: v["dccd_difference_weight"] == 0, "dccd_difference_weight is 0")
_OFF_NEAR = (lambda v: not any(w.startswith("near") for w in v["dccd_view_aug"]), "dccd_view_aug has no near view")
_OFF_MIX = (lambda v: not _mixing(v), "mixup and cutmix are off")
_OFF_BCE = (_without("bce_loss"), "bce_loss is off")
_OFF_EMA = (_without("model_ema"), "model_ema is off")
_OFF_ERASE = (lambda v: v["reprob"] == 0, "reprob is 0")
_OFF_AUG = (lambda v: v["no_aug"], "no_aug switches augmentation off")
_PADDED = (lambda v: v["train_crop_pad"] > 0, "train_crop_pad crops in its own way")
_OFF_WANDB = (lambda v: v["log_with"] != "wandb", "log_with is not wandb")
_OFF_PROJECT = (lambda v: v["log_with"] not in ("wandb", "trackio"), "log_with is neither wandb nor trackio")
_OFF_HUB = (_without("push_to_hub"), "push_to_hub is not set")
_OFF_VALIDATION = (_without("val_split"), "val_split is empty")

Rule = tuple[Callable[[Values], bool], str]

# name -> reasons for which it may be dead
_DEAD: dict[str, tuple[Rule, ...]] = {
    "kd_teacher_dtype": ((_without("kd_model_name"), "no teacher is named: set kd_model_name"),),
    "kd_teacher_checkpoint": ((_without("kd_model_name"), "no teacher is named: set kd_model_name"),),
    "kd_temperature": ((_not_method(*_READS_LOGITS), "the method has no softmax temperature"),),
    "distill_loss_weight": ((_not_method(*_DISTILLS), "nothing is distilled"),),
    "task_loss_weight": ((_not_method(*_DISTILLS), "nothing is distilled"),),
    "kd_student_feature_dim": ((_not_method("feature"), "only kd_distill_type feature reads it"),),
    "kd_teacher_feature_dim": ((_not_method("feature"), "only kd_distill_type feature reads it"),),
    "kd_token_distill_type": ((_not_method("token"), "only kd_distill_type token reads it"),),
    "dccd_contrast_weight": (_OFF_DCCD,),
    "dccd_difference_weight": (_OFF_DCCD,),
    "dccd_contrast_temperature": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_contrast_where": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_contrast_stages": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_contrast_direction": (
        _OFF_DCCD,
        _OFF_CONTRAST,
        (lambda v: v["dccd_contrast_negatives"] == "student", "among a student's own channels both are the same"),
    ),
    "dccd_contrast_scope": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_contrast_targets": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_contrast_negatives": (_OFF_DCCD, _OFF_CONTRAST),
    "dccd_difference_temperature": (
        _OFF_DCCD,
        _OFF_DIFFERENCE,
        (lambda v: v["dccd_difference_loss"] == "mse", "dccd_difference_loss mse has no temperature"),
    ),
    "dccd_difference_loss": (_OFF_DCCD, _OFF_DIFFERENCE),
    "dccd_difference_views": (_OFF_DCCD, _OFF_DIFFERENCE),
    "dccd_near_shift": (_OFF_NEAR,),
    "dccd_near_noise": (_OFF_NEAR,),
    "mixup_prob": (_OFF_MIX,),
    "mixup_switch_prob": (_OFF_MIX,),
    "mixup_mode": (_OFF_MIX,),
    "mixup_off_epoch": (_OFF_MIX,),
    "bce_sum": (_OFF_BCE,),
    "bce_target_thresh": (_OFF_BCE,),
    "bce_pos_weight": (_OFF_BCE,),
    "model_ema_decay": (_OFF_EMA,),
    "model_ema_warmup": (_OFF_EMA,),
    "model_ema_force_cpu": (_OFF_EMA,),
    "remode": (_OFF_ERASE,),
    "recount": (_OFF_ERASE,),
    "resplit": (_OFF_ERASE,),
    "clip_mode": ((lambda v: v["clip_grad"] is None, "clip_grad is not set"),),
    "layer_decay_min_scale": ((_without("layer_decay"), "layer_decay is not set"),),
    "layer_decay_no_opt_scale": ((_without("layer_decay"), "layer_decay is not set"),),
    "lr_base": ((lambda v: v["lr"] is not None, "lr overrides it"),),
    "lr_base_size": ((lambda v: v["lr"] is not None, "lr overrides it"),),
    "lr_base_scale": ((lambda v: v["lr"] is not None, "lr overrides it"),),
    "amp_dtype": ((_without("amp"), "amp is off"),),
    "torchcompile_mode": ((_without("torchcompile"), "torchcompile is off"),),
    "no_resume_opt": ((_without("resume"), "resume is not set"),),
    "wandb_project": (_OFF_PROJECT,),
    "wandb_tags": (_OFF_WANDB,),
    "wandb_resume_id": (_OFF_WANDB,),
    "hub_public": (_OFF_HUB,),
    "hub_revision": (_OFF_HUB,),
    "hub_interval": (_OFF_HUB,),
    "hub_license": (_OFF_HUB,),
    "val_interval": (_OFF_VALIDATION,),
    "validation_batch_size": (_OFF_VALIDATION,),
    "eval_metric": (_OFF_VALIDATION,),
    "color_jitter_prob": (_OFF_AUG, (lambda v: not v["color_jitter"], "color_jitter is 0")),
    "reprob": (_OFF_AUG,),
    "aa": (_OFF_AUG,),
    "vflip": (_OFF_AUG,),
    "train_crop_mode": (_OFF_AUG, _PADDED),
    "train_crop_pad": (_OFF_AUG,),
    "scale": (_PADDED,),
    "ratio": (_PADDED,),
    "grayscale_prob": (_OFF_AUG,),
    "gaussian_blur_prob": (_OFF_AUG,),
}


def _dead_reason(name: str, values: Values) -> str | None:
    return next((reason for dead, reason in _DEAD.get(name, ()) if dead(values)), None)
