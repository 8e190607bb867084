"""Rules that hold between settings: what is decided for the user, what contradicts, what would have no effect."""

from collections.abc import Iterable, Iterator
from dataclasses import fields

from dccd_timm.recipe.methods import LOGIT_LOSSES, METHODS
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.option import Values, default_of, option_of
from dccd_timm.recipe.recipe import Recipe
from dccd_timm.recipe.views import difference_pair, plan_views


def defaults(settings: type = Recipe) -> Values:
    """Every setting's default; None where it is decided for the user."""
    return {f.name: default_of(f) for f in fields(settings)}


def resolve(given: Values) -> Values:
    """All settings of a run: ``given`` over the defaults; None is decided, what has no effect gets its default."""
    values = _decide(defaults() | given)
    for name in given:
        if no_effect(Recipe, name, values):
            values[name] = defaults()[name]
    if values["dccd_views"] is None:
        related = len(values["dccd_view_aug"])
        values["dccd_views"] = related if related > 1 else 2 if values["kd_distill_type"] == "dccd" else 1
    if values["dccd_difference_views"] is None:
        values["dccd_difference_views"] = _difference_views(values)
    if "kd_temperature" not in given:
        values["kd_temperature"] = _temperature(values)
    if values["in_chans"] is None:
        values["in_chans"] = values["input_size"][0] if values["input_size"] else 3
    return values


def ineffective(settings: type, values: Values, names: Iterable[str], refused: bool = True) -> list[str]:
    """One line for each of ``names`` whose value differs from its default and would change nothing: those that are
    ``refused`` for it, or those that are not."""
    known = defaults(settings)
    full = _decide(known | values) if settings is Recipe else known | values
    lines = []
    for name in sorted(names):
        reason = no_effect(settings, name, full, refused)
        if reason and full[name] != known[name] and not _is_decided(name, full):
            lines.append(f"{name} has no effect: {reason}")
    return lines


def no_effect(settings: type, name: str, values: Values, refused: bool = True) -> str | None:
    """Why a setting changes nothing beside all the others; None when it does."""
    field = next(f for f in fields(settings) if f.name == name)
    rules = [rule for rule in option_of(field).no_effect if rule.refused == refused]
    return next((rule.reason for rule in rules if rule.when(values)), None)


def contradictions(recipe: Recipe) -> list[str]:
    """One line for each pair of settings that cannot hold together."""
    rules = (_of_method, _of_labels, _of_cache, _of_views, _of_images, _of_run)
    return [line for rule in rules for line in rule(recipe)]


def advice(recipe: Recipe) -> Iterator[str]:
    """One line for each setting that is allowed and yet hardly wanted, with the flag that changes it."""
    if recipe.sched != "none" and recipe.epochs <= recipe.warmup_epochs and not recipe.warmup_prefix:
        yield (
            f"{recipe.epochs} epochs end within the {recipe.warmup_epochs} epochs of warm-up, so the learning rate is"
            " never reached: lower --warmup-epochs, or raise --epochs"
        )
    model = ModelName.parse(recipe.model)
    begins = not (recipe.pretrained or recipe.initial_checkpoint or recipe.pretrained_path or recipe.resume)
    if begins and model.has_weights:
        yield f"{recipe.model} has weights and the student starts from random ones: --pretrained starts from its own"


def _of_method(recipe: Recipe) -> Iterator[str]:
    method = METHODS[recipe.kd_distill_type]
    if method.distills and not recipe.kd_model_name:
        yield f"kd_distill_type {method.name} needs a teacher: set kd_model_name"
    if recipe.kd_teacher_checkpoint and ModelName.parse(recipe.kd_model_name or "").brings_weights:
        yield f"kd_teacher_checkpoint goes with a plain timm name; {recipe.kd_model_name} brings its own weights"
    if recipe.kd_teacher_head == "drop":
        yield from _of_headless_teacher(recipe)
    if len(set(recipe.dccd_control)) < len(recipe.dccd_control):
        yield f"dccd_control names a method twice: {' '.join(recipe.dccd_control)}"
    if method.distills and method.name in recipe.dccd_control:
        yield f"dccd_control {method.name} is the method itself: choose another one to compare with"


def _of_labels(recipe: Recipe) -> Iterator[str]:
    if not recipe.is_unlabelled:
        return
    if recipe.kd_distill_type != "dccd":
        yield (
            "num_classes 0 trains without labels, and only the channel contrast needs neither labels nor logits: set"
            " kd_distill_type dccd and a teacher"
        )
    elif recipe.task_loss_weight != 0:
        yield "num_classes 0 has no classes for a task loss: set task_loss_weight 0"
    elif recipe.dccd_contrast_weight == 0:
        yield "num_classes 0 leaves the channel contrast alone, and dccd_contrast_weight is 0"
    if recipe.distill_loss_weight:
        yield f"num_classes 0 has no logits for KD: drop distill_loss_weight {recipe.distill_loss_weight:g}"
    if recipe.kd_teacher_probe:
        yield "kd_teacher_probe fits classes, and num_classes 0 says that there are none: drop one of them"
    if recipe.dccd_control:
        yield f"num_classes 0 has no labels for the control {' '.join(recipe.dccd_control)}: drop dccd_control"
    if recipe.mixes or recipe.bce_loss or recipe.class_map or recipe.target_key:
        yield "num_classes 0 has no classes: drop mixup, cutmix, bce_loss, class_map and target_key"


def _of_headless_teacher(recipe: Recipe) -> Iterator[str]:
    controls = [("dccd_control", control) for control in recipe.dccd_control]
    for name, value in (("kd_distill_type", recipe.kd_distill_type), *controls):
        if value != "dccd" and "logits" in METHODS[value].needs:
            yield f"kd_teacher_head drop takes away the logits that {name} {value} reads: choose another method"
    if recipe.kd_distill_type == "dccd" and recipe.distill_loss_weight:
        yield f"kd_teacher_head drop leaves KD no logits: drop distill_loss_weight {recipe.distill_loss_weight:g}"


def _of_cache(recipe: Recipe) -> Iterator[str]:
    """Why a teacher's answers cannot be kept."""
    if not recipe.kd_cache:
        return
    if recipe.is_unlabelled:
        yield "kd_cache keeps logits and maps, and num_classes 0 reads the teacher's pooled features too: drop kd_cache"
    method = METHODS[recipe.kd_distill_type]
    if method.distills and not method.cached:
        others = ", ".join(other.name for other in METHODS.values() if other.cached)
        yield f"kd_cache keeps logits and the map of the contrast, {method.name} needs more: drop it, or use {others}"
    if recipe.mixes:
        yield "kd_cache keeps answers to single images: mixup and cutmix mix them before the teacher sees them; drop it"
    drawn = (recipe.reprob > 0 and not recipe.no_prefetcher) or any(w.startswith("near") for w in recipe.dccd_view_aug)
    if drawn and not recipe.dccd_view_period:
        yield (
            "kd_cache needs erased boxes and near copies that belong to an image and not to a batch: set"
            f" dccd_view_period, to {recipe.epochs} for views that never come again"
        )
    if recipe.kd_cache_map == "pooled" and recipe.dccd_contrast_weight == 0:
        yield "kd_cache_map has no effect: dccd_contrast_weight is 0"


def _of_views(recipe: Recipe) -> Iterator[str]:
    views, pair = recipe.dccd_views, recipe.dccd_difference_views
    if recipe.kd_distill_type == "dccd" and recipe.dccd_difference_weight > 0:
        if views < 2:
            yield (
                f"dccd_difference_weight {recipe.dccd_difference_weight:g} needs two views of an image: set dccd_views"
                " to 2 or the weight to 0"
            )
        elif pair[0] == pair[1] or not all(0 <= v < views for v in pair):
            yield f"dccd_difference_views {pair} must be two different views below {views}"
    if recipe.resplit and views < 2:
        yield "resplit leaves the first of several views unerased: set dccd_views to 2 or more"
    if recipe.aug_repeats and views > 1:
        yield f"aug_repeats gives an image several times, as {views} views do: set dccd_views to 1, or aug_repeats to 0"
    if recipe.split_bn and views < 2:
        yield "split_bn takes the statistics of each of several views: set dccd_views to 2 or more"
    try:
        plan_views(recipe.dccd_view_aug, views)
    except ValueError as error:
        yield f"dccd_view_aug: {error}"


def _of_images(recipe: Recipe) -> Iterator[str]:
    size = recipe.input_size
    if recipe.mixes and recipe.batch_size % 2 == 1:
        yield f"mixup and cutmix pair images: batch_size {recipe.batch_size} must be even"
    if size and recipe.in_chans != size[0]:
        yield f"in_chans {recipe.in_chans} contradicts input_size {size}"
    if size and recipe.img_size is not None and (recipe.img_size,) * 2 != size[1:]:
        yield f"img_size {recipe.img_size} contradicts input_size {size}: give one of them"
    for name, value in (("mean", recipe.mean), ("std", recipe.std)):
        if value is not None and len(value) not in (1, recipe.in_chans):
            yield f"{name} needs 1 or {recipe.in_chans} values, one per channel, got {value}"


def _of_run(recipe: Recipe) -> Iterator[str]:
    if recipe.resume == "auto" and not recipe.experiment:
        yield "resume auto needs --experiment, which names the run's folder"
    if recipe.log_wandb and recipe.log_with != "wandb":
        yield f"log_wandb contradicts log_with {recipe.log_with}: give one of them"


def _decide(values: Values) -> Values:
    """Which method trains and what logs: other options have an effect or none by them."""
    decided = dict(values)
    # timm trains without distillation when no teacher is named, whatever its default type says
    if values["kd_distill_type"] == "logit" and not values["kd_model_name"]:
        decided["kd_distill_type"] = "none"
    if values["log_wandb"] and values["log_with"] == "none":
        decided["log_with"] = "wandb"
    return decided


def _is_decided(name: str, values: Values) -> bool:
    """Whether a value is the one that :func:`resolve` gives to an option without effect, as args.yaml then says it."""
    decided = {"dccd_difference_views": _difference_views, "kd_temperature": _temperature}
    return name in decided and values[name] == decided[name](values)


def _temperature(values: Values) -> float | None:
    """The temperature of the loss between logits; of a loss without one, that of KD, by which nothing goes."""
    return LOGIT_LOSSES[values["kd_loss_type"]].temperature or LOGIT_LOSSES["kl"].temperature


def _difference_views(values: Values) -> tuple[int, int]:
    try:
        return difference_pair(plan_views(values["dccd_view_aug"], values["dccd_views"] or 2))
    except ValueError:  # contradictions() names it
        return 0, 1
