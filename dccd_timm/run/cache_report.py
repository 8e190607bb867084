"""What a folder of a teacher's answers holds, and whether the teacher still gives them: dccd-timm cache."""

import dataclasses
import json
import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from accelerate import Accelerator

from dccd_timm.batch import Batch
from dccd_timm.cache.form import Form, Rows
from dccd_timm.cache.identity import Identity, Values
from dccd_timm.cache.store import AnswerStore
from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.sources import open_split
from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.losses.contrast import pool_to
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.weights import hash_weights
from dccd_timm.plan.report import readable_size
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.run.cache_identity import belongings
from dccd_timm.run.load_teacher import load_run_teacher
from dccd_timm.run.pieces import teacher_dtype

_logger = logging.getLogger(__name__)

# Largest difference, as a part of the largest logit, that rounding explains: float16 has 2^-11, other batches less.
_ROUNDING = 2e-3


class _Kept(NamedTuple):
    """What a folder holds."""

    folder: Path
    identity: Identity
    form: Form
    store: AnswerStore


def show_cache(folder: Path, verify: int = 0, modules: Sequence[str] = ()) -> None:
    """Print what a ``folder`` of answers holds, and compare ``verify`` images' answers with the teacher's own.

    ``modules`` are imported in place of those of the run that wrote them.

    Raises:
        UserError: for a folder without answers, or answers that the teacher does not give.
    """
    identity = Identity.read(folder)
    if identity is None:
        raise UserError(f"{folder} holds no answers of a teacher: it has no answers.json")
    form = Form.from_json(json.dumps(identity.belongs["answers"]))
    kept = _Kept(folder, identity, form, AnswerStore(folder))
    print(_describe(kept), flush=True)
    if verify:
        print(f"  verified   {_verify(kept, verify, modules)}", flush=True)


def _describe(kept: _Kept) -> str:
    identity, form, store = kept.identity, kept.form, kept.store
    facts, belongs = identity.teacher, identity.belongs
    views, counts = belongs["views"], store.counts()
    logits = f"the {form.highest} highest of {form.classes}" if form.highest else f"{form.classes}"
    kept_maps = zip(form.maps, form.stages, strict=True)
    maps = [f"map {'x'.join(map(str, shape))} of stage {stage}" for shape, stage in kept_maps]
    period = views["dccd_view_period"]
    lines = {
        "teacher": f"{facts.options['kd_model_name']}, {facts.num_parameters / 1e6:.3f} M parameters, weights"
        f" {str(belongs['teacher']['weights'])[:12]}",
        "data": f"{identity.images} images, fingerprint {str(belongs['data']['fingerprint'])[:12]}",
        "views": f"{form.views} of each image, seed {views['seed']}, "
        + (f"epoch e has those of epoch e mod {period}" if period else "new ones in every epoch"),
        "answers": ", ".join([f"logits of {logits} classes", *maps, str(form.dtype).removeprefix("torch.")]),
        "there": ", ".join(f"epoch {epoch + 1}: {counts[epoch]} images" for epoch in sorted(counts)) or "none",
        "on disk": f"{readable_size(store.num_bytes)} in {len(store.shards)} files, {readable_size(form.image_bytes)}"
        f" an image, {readable_size(shutil.disk_usage(kept.folder).free)} left",
        "damaged": ", ".join(sorted(store.torn)),
    }
    return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)


def _verify(kept: _Kept, wanted: int, modules: Sequence[str]) -> str:
    """Draw views again, ask the teacher, and compare; a line for people.

    Raises:
        UserError: for answers that are not the teacher's.
    """
    counts = kept.store.counts()
    if not counts:
        raise UserError(f"{kept.folder} holds no answers that could be verified")
    recipe = load_recipe(["-c", str(kept.folder / "args.yaml")])
    recipe = dataclasses.replace(
        recipe, device_modules=tuple(modules) or recipe.device_modules, log_with="none", batch_size=min(wanted, 32),
        grad_accum_steps=1, kd_cache=None,
    )  # fmt: skip
    if recipe.kd_teacher_probe:
        raise UserError(
            f"the teacher of {kept.folder} has a probe, which is kept with its run and cannot be verified here"
        )
    accelerator = start_accelerator(recipe)
    source = open_split(recipe, recipe.train_split, True, recipe.train_num_samples)
    config = _data_config(kept.identity.belongs["views"])
    known = belongings(recipe, source, config, accelerator)
    kept.identity.check({"data": known["data"], "views": known["views"]}, kept.folder)
    teacher = _teacher(kept, recipe, source.names, config, accelerator)
    epoch = random.choice(sorted(counts))  # its views in any of their orders
    epoch += (recipe.dccd_view_period or 0) * random.randrange(100)
    loader = build_train_loader(recipe, source, config, kept.form.classes, Rank(accelerator.device), epoch)
    batches, compared, worst, missing = iter(loader), 0, 0.0, 0
    while compared < wanted and missing < 20:
        batch = next(batches)
        images, difference = _compare(kept, teacher, batch)
        compared, worst = compared + images, max(worst, difference)
        missing = 0 if images else missing + 1
    loader.close()
    if worst > _ROUNDING:
        raise UserError(
            f"{kept.folder}: the teacher's answers differ from those that are kept by {100 * worst:.2g} % of the"
            " largest, more than rounding: delete the folder, or give another one to --kd-cache"
        )
    return f"{compared} images, largest difference {100 * worst:.2g} % of the largest logit or feature"


def _data_config(views: Values) -> DataConfig:
    """The preprocessing of the views."""
    config = {name: views[name] for name in ("input_size", "mean", "std", "interpolation")}
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    return cast(DataConfig, config | {"crop_pct": 1.0})


def _teacher(
    kept: _Kept, recipe: Recipe, names: Sequence[str] | None, config: DataConfig, accelerator: Accelerator
) -> FrozenTeacher:
    model = load_run_teacher(recipe, kept.form.classes, names)
    assert model is not None
    belongs = kept.identity.belongs["teacher"]
    if hash_weights(model) != belongs["weights"]:
        raise UserError(f"{recipe.kd_model_name} has other weights than the teacher whose answers {kept.folder} holds")
    teacher = FrozenTeacher(
        model, config["mean"], config["std"], config["input_size"], teacher_dtype(recipe, accelerator),
        bool(belongs["folded"]), recipe.kd_teacher_img_size,
    )  # fmt: skip
    return teacher.to(accelerator.device)


def _compare(kept: _Kept, teacher: FrozenTeacher, batch: Batch) -> tuple[int, float]:
    """How many images of a batch have answers, and the largest difference as a part of the largest value."""
    assert batch.draws is not None
    rows, found = kept.store.read(batch.draws.seeds)
    if not found.any():
        return 0, 0.0
    images = batch.views[found.to(batch.views.device)].transpose(0, 1).flatten(0, 1)
    with torch.no_grad():
        logits, maps = teacher(images, list(kept.form.stages))
    pooled = [pool_to(values, shape[1:]) for values, shape in zip(maps, kept.form.maps, strict=True)]
    form = kept.form
    fresh = form.unpack(form.pack(logits, pooled), images.device)
    old = form.unpack(_found(rows, found), images.device)
    pairs = zip([fresh[0], *fresh[1]], [old[0], *old[1]], strict=True)
    parts = [((new - was).abs().max() / new.abs().max().clamp(min=1e-6)).item() for new, was in pairs if new.numel()]
    return int(found.sum()), max(parts, default=0.0)


def _found(rows: Rows, found: torch.Tensor) -> Rows:
    return {name: values[found] for name, values in rows.items()}
