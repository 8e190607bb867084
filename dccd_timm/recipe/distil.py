"""What a student learns from its teacher: timm's options for distillation, then those of DCCD."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dccd_timm.recipe.methods import LOGIT_LOSSES, METHODS, Method
from dccd_timm.recipe.option import NoEffect, option, without

_kd = partial(option, group="Teacher and distillation (timm's names)")
_dccd = partial(option, group="DCCD")


def teacher_size(student: str, declare: Callable[..., str], no_effect: NoEffect) -> str:
    """Declare the size of a teacher's images, in training and in validation; ``student`` is what help calls the other
    network."""
    return declare(
        "own",
        f"size at which the teacher sees the images: its configuration's, the {student}'s, or N pixels",
        choices=("own", "student"),
        or_number="pixels",
        no_effect=(no_effect,),
    )


def _unless(methods: Iterable[Method], reason: str) -> NoEffect:
    """No effect while neither the run's method nor a control is one of ``methods``."""
    names = {method.name for method in methods}
    return NoEffect(lambda v: not names & {v["kd_distill_type"], *v["dccd_control"]}, reason)


def _only(name: str) -> NoEffect:
    return _unless([METHODS[name]], f"only kd_distill_type {name} reads it")


_ALL = METHODS.values()
_NOT_DCCD, _NOT_FEATURE, _NOT_TOKEN = _only("dccd"), _only("feature"), _only("token")
_NOT_DISTILLED = _unless([m for m in _ALL if m.distills], "nothing is distilled")
_NO_TEMPERATURE = _unless(
    [m for m in _ALL if "logits" in m.needs and m.name != "ofa"], "the method has no softmax temperature"
)
_NO_LOGIT_LOSS = _unless(
    [m for m in _ALL if m.has_logit_loss], "only kd_distill_type logit and dccd have a loss between logits"
)
_NO_WARMUP = _unless(
    [m for m in _ALL if m.has_logit_loss or m.has_feature_loss],
    "the method has no loss between logits and is none of the feature methods",
)
_TAPPED = [m for m in _ALL if m.has_feature_loss]
_NO_FEATURE_LOSS = _unless(_TAPPED, f"only kd_distill_type {', '.join(m.name for m in _TAPPED)} read it")


def _loss(name: str) -> NoEffect:
    """No effect under another loss between logits."""
    return NoEffect(lambda v: v["kd_loss_type"] != name, f"only kd_loss_type {name} reads it")


_NO_SOFTENING = NoEffect(
    lambda v: LOGIT_LOSSES[v["kd_loss_type"]].temperature is None, "kd_loss_type wttm has kd_wttm_gamma in its place"
)
_NO_TEACHER = without("kd_model_name", "no teacher is named: set kd_model_name")
_NO_CACHE = without("kd_cache")
_NO_CONTRAST = NoEffect(lambda v: v["dccd_contrast_weight"] == 0, "dccd_contrast_weight is 0")
_NO_DIFFERENCE = NoEffect(lambda v: v["dccd_difference_weight"] == 0, "dccd_difference_weight is 0")
_NO_SOFTMAX = NoEffect(lambda v: v["dccd_difference_loss"] == "mse", "dccd_difference_loss mse has no temperature")
_ONE_DIRECTION = NoEffect(
    lambda v: v["dccd_contrast_negatives"] == "student", "among a student's own channels both are the same"
)
_NO_NEAR_VIEW = NoEffect(
    lambda v: not any(w.startswith("near") for w in v["dccd_view_aug"]), "dccd_view_aug has no near view"
)


@dataclass(frozen=True)
class Distil:
    """Teacher, method, weights and temperatures."""

    kd_model_name: str | None = _kd(
        None, "teacher: a timm name, hf-hub:owner/name or local-dir:path", published="model", usual=True
    )
    kd_teacher_checkpoint: str | None = _kd(
        None,
        "teacher weights (safetensors or timm checkpoint) for a timm name",
        no_effect=(_NO_TEACHER,),
        published="file",
    )
    kd_teacher_head: Literal["own", "drop"] = _kd(
        "own",
        "the teacher's head; without it its features alone are used, by dccd (KD and difference are off) and the"
        " feature methods",
        no_effect=(_NO_TEACHER, NoEffect(lambda v: v["kd_teacher_probe"] > 0, "kd_teacher_probe replaces the head")),
    )
    kd_teacher_probe: int = _kd(
        0,
        "first train a linear head on the teacher's features, for so many passes over them; it replaces the teacher's"
        " own",
        low=0,
        no_effect=(_NO_TEACHER,),
        resume="refused",
    )
    kd_teacher_dtype: Literal["float32", "bfloat16", "float16"] | None = _kd(
        None,
        "precision of the teacher (default: that of mixed precision on a GPU, else float32)",
        no_effect=(_NO_TEACHER,),
    )
    kd_teacher_img_size: str = teacher_size("student", _kd, _NO_TEACHER)
    allow_weak_teacher: bool = _kd(
        False,
        "train although the teacher is near chance on the validation split, or below a pretrained student",
        no_effect=(_NO_TEACHER,),
        resume="free",
    )
    kd_cache: str | None = _kd(
        None,
        "folder that keeps the teacher's answers to the views, which are computed once and read from then on",
        no_effect=(_NO_TEACHER, _NOT_DISTILLED),
        published="no",
    )
    kd_cache_logits: str = _kd(
        "float16",
        "how it keeps logits and maps: float16, float32, or the K highest logits with the mass of the rest",
        choices=("float16", "float32"),
        or_number="classes",
        no_effect=(_NO_CACHE,),
    )
    kd_cache_map: Literal["grid", "pooled"] = _kd(
        "grid",
        "how it keeps maps: on the grid that both networks have in common, or averaged over it, and compared so",
        no_effect=(_NO_CACHE, _NOT_DCCD),
    )
    kd_distill_type: str = _kd(
        "logit",
        "method; all but dccd and none are timm's own tasks",
        choices=tuple(METHODS),
        resume="refused",
        usual=True,
    )
    kd_loss_type: str = _kd(
        "kl",
        "loss between logits, of logit and of dccd: "
        + ", ".join(f"{loss.name} ({loss.label})" for loss in LOGIT_LOSSES.values()),
        choices=tuple(LOGIT_LOSSES),
        no_effect=(_NO_LOGIT_LOSS,),
        resume="refused",
    )
    distill_loss_weight: float | None = _kd(
        None,
        "weight of the distillation loss (default: that of the loss's paper, for kl 1)",
        low=0,
        no_effect=(_NOT_DISTILLED,),
    )
    task_loss_weight: float | None = _kd(
        None,
        "weight of the task loss (default 1, for ls 0.1); alone it means 1 - w for a distillation weight of 1",
        low=0,
        no_effect=(_NOT_DISTILLED,),
    )
    kd_temperature: float = _kd(
        4.0,
        "temperature of the distillation softmax, where none is given that of the loss's paper: "
        + ", ".join(f"{loss.name} {loss.temperature:g}" for loss in LOGIT_LOSSES.values() if loss.temperature),
        low=1e-06,
        no_effect=(_NO_TEMPERATURE, _NO_SOFTENING),
    )
    kd_warmup_epochs: float = _kd(
        0.0,
        "epochs in which the weight of the loss between logits, or of a feature method, rises from 0",
        low=0,
        no_effect=(_NO_WARMUP,),
    )
    kd_dkd_alpha: float = _kd(1.0, "dkd: weight of the target's part", low=0, no_effect=(_loss("dkd"),))
    kd_dkd_beta: float = _kd(8.0, "dkd: weight of the other classes' part", low=0, no_effect=(_loss("dkd"),))
    kd_dist_beta: float = _kd(1.0, "dist: weight of the correlation of rows", low=0, no_effect=(_loss("dist"),))
    kd_dist_gamma: float = _kd(1.0, "dist: weight of the correlation of columns", low=0, no_effect=(_loss("dist"),))
    kd_wttm_gamma: float = _kd(
        0.1, "wttm: power of the teacher's probabilities", low=1e-06, high=1, no_effect=(_loss("wttm"),)
    )
    kd_ofa_exponent: float = _kd(1.0, "ofa: power of the target's share", low=1e-06, no_effect=(_only("ofa"),))
    kd_wkd_mean_weight: float = _kd(
        2.0, "wkd: weight of the means beside the deviations", low=0, no_effect=(_only("wkd"),)
    )
    kd_wkd_grid: int = _kd(1, "wkd: cells across, each with a Gaussian of its own", low=1, no_effect=(_only("wkd"),))
    kd_feature_stages: tuple[int, ...] | None = _kd(
        None,
        "stages of fitnet, at, sp, rkd, wkd and ofa, counted from the end (default: the deepest with at least 16"
        " positions; at and ofa: all with as many)",
        no_effect=(_NO_FEATURE_LOSS,),
    )
    kd_student_feature_dim: int | None = _kd(
        None, "feature: width of the student's features", low=1, no_effect=(_NOT_FEATURE,)
    )
    kd_teacher_feature_dim: int | None = _kd(
        None, "feature: width of the teacher's features", low=1, no_effect=(_NOT_FEATURE,)
    )
    kd_token_distill_type: Literal["soft", "hard"] = _kd(
        "soft", "token: soft or hard teacher targets", no_effect=(_NOT_TOKEN,)
    )
    dccd_views: int = _dccd(
        None, "augmented views per image, for every method (default: 2 for dccd, 1 else)", low=1, views=True
    )
    dccd_view_aug: tuple[str, ...] = _dccd(
        ("same",),
        "how the views relate: same, weak-strong, near, or one value a view: strong, weak, near:K",
        views=True,
    )
    dccd_near_shift: int | None = _dccd(
        None, "near: largest shift in pixels (default: 1/50 of the size)", low=0, no_effect=(_NO_NEAR_VIEW,), views=True
    )
    dccd_near_noise: float = _dccd(
        0.02,
        "near views: standard deviation of the noise, pixels in 0 ... 1",
        low=0,
        no_effect=(_NO_NEAR_VIEW,),
        views=True,
    )
    dccd_view_period: int = _dccd(
        0, "if above 0: epoch e shows the views of epoch e mod K, in an order of its own", low=0, views=True
    )
    dccd_contrast_weight: float = _dccd(5.0, "weight of the channel contrast term", low=0, no_effect=(_NOT_DCCD,))
    dccd_contrast_temperature: float = _dccd(
        0.1, "temperature of the channel contrast", low=1e-06, no_effect=(_NOT_DCCD, _NO_CONTRAST)
    )
    dccd_contrast_where: Literal["spatial", "pooled"] = _dccd(
        "spatial", "compare channels at all positions or after pooling", no_effect=(_NOT_DCCD, _NO_CONTRAST)
    )
    dccd_contrast_stages: tuple[int, ...] | None = _dccd(
        None,
        "stages counted from the end, e.g. -1 -2 (default: the deepest with at least 16 positions)",
        no_effect=(_NOT_DCCD, _NO_CONTRAST),
    )
    dccd_contrast_direction: Literal["symmetric", "student"] = _dccd(
        "symmetric",
        "match in both directions, or each student channel only",
        no_effect=(_NOT_DCCD, _NO_CONTRAST, _ONE_DIRECTION),
    )
    dccd_contrast_scope: Literal["global", "local"] = _dccd(
        "global",
        "channel statistics over the batches of all ranks, or of each rank",
        no_effect=(_NOT_DCCD, _NO_CONTRAST),
    )
    dccd_contrast_targets: Literal["hard", "soft"] = _dccd(
        "soft", "the teacher's own channel similarities, or the same channel only", no_effect=(_NOT_DCCD, _NO_CONTRAST)
    )
    dccd_contrast_negatives: Literal["teacher", "student"] = _dccd(
        "teacher",
        "distinguish a student channel from the teacher's other channels, or from the student's own",
        no_effect=(_NOT_DCCD, _NO_CONTRAST),
    )
    dccd_difference_weight: float = _dccd(0.02, "weight of the difference term", low=0, no_effect=(_NOT_DCCD,))
    dccd_difference_temperature: float = _dccd(
        4.0, "temperature of the difference (kl)", low=1e-06, no_effect=(_NOT_DCCD, _NO_DIFFERENCE, _NO_SOFTMAX)
    )
    dccd_difference_loss: Literal["kl", "mse"] = _dccd(
        "kl", "compare differences by KL of their softmax or by MSE", no_effect=(_NOT_DCCD, _NO_DIFFERENCE)
    )
    dccd_difference_views: tuple[int, ...] = _dccd(
        None,
        "the two views whose difference is compared (default: a near pair, else 0 1)",
        count=2,
        no_effect=(_NOT_DCCD, _NO_DIFFERENCE),
    )
    dccd_control: tuple[str, ...] = _dccd(
        (),
        "also train the same student by these methods (same seed, steps, views) and compare; the gain is that over the"
        " first",
        choices=tuple(name for name in METHODS if name != "dccd"),
        resume="free",
    )
