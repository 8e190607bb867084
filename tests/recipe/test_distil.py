"""Distillation: what each method needs, what has no effect, and defaults that the Python API shares."""

import inspect
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from dccd_timm import ChannelContrastiveLoss, DCCDTask, DynamicDifferenceLoss
from dccd_timm.losses.contrast import channel_contrastive_loss
from dccd_timm.losses.difference import dynamic_difference_loss
from dccd_timm.recipe import Distil, load_recipe
from dccd_timm.recipe.option import kind_of
from tests.recipe.mistakes import DCCD, TEACHER, assert_refused

UNLABELLED = f"{DCCD} --num-classes 0 --task-loss-weight 0"


def test_without_labels_the_score_is_that_of_neighbours_or_a_loss():
    found = [load_recipe([*UNLABELLED.split(), *more.split()]) for more in ("", "--probe-split train", "--val-split=")]
    assert [(r.score, r.lower_is_better) for r in found] == [("loss", True), ("knn", False), ("loss", True)]
    assert load_recipe([]).score == "top1" and not load_recipe([]).is_unlabelled


def test_without_a_teacher_timms_default_method_means_none():
    assert load_recipe([]).kd_distill_type == "none"
    assert load_recipe(TEACHER.split()).kd_distill_type == "logit"


def test_views_follow_the_method():
    assert load_recipe(DCCD.split()).dccd_views == 2
    assert load_recipe(TEACHER.split()).dccd_views == 1
    assert load_recipe(["--dccd-views", "2"]).dccd_views == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--kd-distill-type magic", "must be one of none, logit, feature, token, fitnet, at, sp, rkd, wkd, ofa, dccd"),
        ("--kd-distill-type dccd", "needs a teacher: set kd_model_name"),
        ("--kd-temperature 2", "no effect: the method has no softmax temperature"),
        ("--distill-loss-weight 2", "no effect: nothing is distilled"),
        (f"{TEACHER} --kd-token-distill-type hard", "no effect: only kd_distill_type token reads it"),
        ("--dccd-contrast-temperature 0.2", "no effect: only kd_distill_type dccd reads it"),
        ("--dccd-difference-views 1 0", "no effect: only kd_distill_type dccd reads it"),
        ("--kd-teacher-checkpoint x.safetensors", "no effect: no teacher is named"),
        (f"{DCCD} --dccd-difference-weight 0.1 --dccd-views 1", "dccd_difference_weight 0.1 needs two views"),
        (f"{DCCD} --dccd-difference-views 0 2", "must be two different views below 2"),
        (f"{DCCD} --dccd-difference-views 1 1", "must be two different views below 2"),
        (f"{DCCD} --dccd-contrast-weight 0 --dccd-contrast-where pooled", "no effect: dccd_contrast_weight is 0"),
        (f"{DCCD} --dccd-difference-weight 0 --dccd-difference-loss mse", "no effect: dccd_difference_weight is 0"),
        (f"{DCCD} --dccd-difference-loss mse --dccd-difference-temperature 2", "mse has no temperature"),
        (
            f"{DCCD} --dccd-contrast-negatives student --dccd-contrast-direction student",
            "no effect: among a student's own channels both are the same",
        ),
        (f"{DCCD} --dccd-near-noise 0.1", "no effect: dccd_view_aug has no near view"),
        ("--kd-distill-type dccd --kd-model-name hf-hub:a/b --kd-teacher-checkpoint x.pth", "brings its own weights"),
        (
            f"{DCCD} --dccd-control dccd",
            "must be one of none, logit, feature, token, fitnet, at, sp, rkd, wkd, ofa, got 'dccd'",
        ),
        (f"{TEACHER} --kd-teacher-head drop", "takes away the logits that kd_distill_type logit reads"),
        (f"{DCCD} --kd-teacher-head drop --dccd-control ofa", "takes away the logits that dccd_control ofa reads"),
        (f"{DCCD} --kd-teacher-head drop --distill-loss-weight 1", "leaves KD no logits: drop distill_loss_weight 1"),
        ("--kd-teacher-head drop", "no effect: no teacher is named"),
        ("--num-classes 0", "set kd_distill_type dccd and a teacher"),
        (f"{DCCD} --num-classes 0", "num_classes 0 has no classes for a task loss: set task_loss_weight 0"),
        (
            f"{UNLABELLED} --kd-teacher-probe 5",
            "kd_teacher_probe fits classes, and num_classes 0 says that there are none",
        ),
        (f"{UNLABELLED} --dccd-control none", "num_classes 0 has no labels for the control none"),
        (f"{UNLABELLED} --distill-loss-weight 1", "num_classes 0 has no logits for KD"),
        (f"{UNLABELLED} --dccd-contrast-weight 0", "dccd_contrast_weight is 0"),
        (f"{UNLABELLED} --mixup 0.2", "num_classes 0 has no classes: drop mixup"),
        (f"{UNLABELLED} --eval-metric top5", "no effect: num_classes is 0: k-NN on --probe-split"),
        ("--probe-split train", "no effect: num_classes is not 0"),
        (f"{TEACHER} --dccd-control logit", "dccd_control logit is the method itself"),
        (f"{TEACHER} --dccd-control none logit", "dccd_control logit is the method itself"),
        (f"{DCCD} --dccd-control none none", "dccd_control names a method twice: none none"),
        ("--reprob 0.2 --resplit", "set dccd_views to 2"),
        ("--kd-cache answers", "no effect: no teacher is named"),
        (f"{TEACHER} --kd-cache-logits float32", "no effect: kd_cache is not set"),
        (f"{TEACHER} --kd-cache a --kd-cache-logits half", "float16, float32, or a number of classes, got 'half'"),
        (f"{TEACHER} --kd-cache a --kd-cache-map pooled", "no effect: only kd_distill_type dccd reads it"),
        (f"{DCCD} --kd-cache a --kd-cache-map pooled --dccd-contrast-weight 0", "no effect: dccd_contrast_weight is 0"),
        (f"{DCCD} --kd-cache a --mixup 0.2", "mixup and cutmix mix them before the teacher sees them; drop it"),
        (f"{DCCD} --kd-cache a --cutmix 1", "mixup and cutmix mix them before the teacher sees them; drop it"),
        (
            f"{DCCD} --kd-cache a --dccd-view-aug near --epochs 9",
            "set dccd_view_period, to 9 for views that never come",
        ),
        (f"{TEACHER} --kd-cache a --reprob 0.1", "belong to an image and not to a batch: set dccd_view_period"),
        *(
            (
                f"{TEACHER} --kd-cache a --kd-distill-type {method}",
                f"{method} needs more: drop it, or use logit, token, ofa, dccd",
            )
            for method in ("feature", "fitnet", "at", "sp", "rkd", "wkd")
        ),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


def test_the_control_may_read_what_the_method_does_not():
    recipe = load_recipe([*DCCD.split(), "--dccd-control", "token", "--kd-token-distill-type", "hard"])
    assert recipe.kd_token_distill_type == "hard"


# parameter of the Python API -> option of the recipe
TASK = {
    "views": "dccd_views", "loss_type": "kd_loss_type", "warmup_epochs": "kd_warmup_epochs", "distill_loss_weight": "distill_loss_weight",
    "task_loss_weight": "task_loss_weight", "contrast_loss_weight": "dccd_contrast_weight",
    "contrast_temperature": "dccd_contrast_temperature", "contrast_where": "dccd_contrast_where",
    "contrast_stages": "dccd_contrast_stages", "contrast_direction": "dccd_contrast_direction",
    "contrast_targets": "dccd_contrast_targets", "contrast_negatives": "dccd_contrast_negatives",
    "contrast_scope": "dccd_contrast_scope", "difference_loss_weight": "dccd_difference_weight",
    "difference_temperature": "dccd_difference_temperature", "difference_form": "dccd_difference_loss",
    "difference_views": "dccd_difference_views", "teacher_img_size": "kd_teacher_img_size",
}  # fmt: skip
CONTRAST = {name: f"dccd_contrast_{name}" for name in ("temperature", "targets", "direction", "scope", "negatives")}
DIFFERENCE = {"temperature": "dccd_difference_temperature", "form": "dccd_difference_loss"}


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (DCCDTask, TASK),
        (ChannelContrastiveLoss, CONTRAST),
        (channel_contrastive_loss, CONTRAST),
        (DynamicDifferenceLoss, DIFFERENCE | {"views": "dccd_views", "pair": "dccd_difference_views"}),
        (dynamic_difference_loss, DIFFERENCE),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_python_api_has_the_defaults_of_the_options(function, options):
    recipe, parameters = load_recipe(DCCD.split()), inspect.signature(function).parameters
    assert {name: parameters[name].default for name in options} == {
        name: getattr(recipe, option) for name, option in options.items()
    }
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    chosen = {name: hints[name] for name in options if get_origin(hints[name]) is Literal}
    assert chosen
    for name, hint in chosen.items():
        assert set(get_args(hint)) == set(kind_of(Distil.__dataclass_fields__[options[name]]).choices)


def test_the_quickstarts_control_isolates_dccd():
    """KD on the same views; a student without a teacher is one flag away."""
    quickstart = ["-c", "recipes/quickstart.yaml"]
    recipe = load_recipe(quickstart)
    assert (recipe.kd_distill_type, recipe.dccd_control, recipe.dccd_views) == ("dccd", ("logit",), 2)
    assert load_recipe([*quickstart, "--dccd-control", "none"]).dccd_control == ("none",)
    assert load_recipe([*quickstart, "--dccd-control", "logit", "none"]).dccd_control == ("logit", "none")
    assert load_recipe([*quickstart, "--dccd-control", ""]).dccd_control == ()
