"""Recipe -> one training: student, task, optimizer, schedule and loaders, each on its device."""

import contextlib
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DynamoBackend, set_seed
from timm.task import TrainingTask
from torch import nn

from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader, check_readable
from dccd_timm.data.loader import EvalLoader, SavedPosition, TrainLoader
from dccd_timm.data.sources import Source, open_split
from dccd_timm.data.sources.folders import find_split
from dccd_timm.engine.evaluate import Evaluation
from dccd_timm.engine.optim import Schedule, build_optimizer, build_schedule
from dccd_timm.errors import UserError
from dccd_timm.launch.modules import worker_preparation
from dccd_timm.models.cost import check_input_size
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.student import build_student, check_batch_norm, share_batch_norms
from dccd_timm.models.timm_model import as_timm
from dccd_timm.models.weights import hash_weights
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.run.cache import AnswerCache, open_cache
from dccd_timm.run.classes import number_split, number_student
from dccd_timm.run.export import check_own_network
from dccd_timm.run.load_teacher import evaluated_teacher, load_run_teacher
from dccd_timm.run.probe import Probe, find_probe
from dccd_timm.task.answered import AnsweredTeacher
from dccd_timm.task.build import build_task, teacher_of

_logger = logging.getLogger(__name__)


@dataclass
class Splits:
    """The opened splits of a run, shared with its control run; ``probe`` has the neighbours of unlabelled images."""

    train: Source
    val: Source | None
    probe: Source | None = None


def open_splits(recipe: Recipe) -> Splits:
    """Open the recipe's training split, and its validation split if it has one.

    Raises:
        UserError: for data that cannot be read, and for a root without folders for its splits, unless both splits
            have one name.
    """
    train = open_split(recipe, recipe.train_split, True, recipe.train_num_samples)
    if recipe.probe_split:
        return _open_labelled(recipe, train)
    val = open_split(recipe, recipe.val_split, False, recipe.val_num_samples) if recipe.val_split else None
    if val is not None:
        if recipe.val_split != recipe.train_split and train.folder and train.folder == val.folder:
            raise UserError(_same_images(recipe, Path(train.folder)))
        if recipe.val_split == recipe.train_split:
            _logger.warning("split %s is the training images: its accuracy says nothing of others", recipe.val_split)
        number_split(val, train.names, f"split {recipe.val_split}", f"split {recipe.train_split}")
    return Splits(train, val)


def _same_images(recipe: Recipe, root: Path) -> str:
    """Why a ``root`` without folders for splits is refused, and what may be meant."""
    above = root.absolute().parent
    with contextlib.suppress(UserError, OSError):
        if (found := find_split(above, recipe.val_split)) != above:
            return f"{root} is one split, and {found} beside it is another: give --data-dir {shlex.quote(str(above))}"
    return (
        f"{root} has no folders for its splits, so {recipe.val_split} would be the training images: move the images"
        f" into {root / 'train'}/<class> and {root / 'validation'}/<class>; --val-split '' trains without validation,"
        f" and --val-split {recipe.train_split} evaluates on the training images"
    )


def _open_labelled(recipe: Recipe, train: Source) -> Splits:
    """Beside images without labels a validation split and a probe split with the same classes."""
    labelled = replace(recipe, num_classes=None)
    val = open_split(labelled, recipe.val_split, False, recipe.val_num_samples)
    probe = open_split(labelled, recipe.probe_split, False, None)
    if recipe.val_split == recipe.probe_split or (val.folder and val.folder == probe.folder):
        raise UserError(
            f"--probe-split {recipe.probe_split} has the images of the validation split, which would be their own"
            " neighbours: choose another"
        )
    number_split(val, probe.names, f"split {recipe.val_split}", f"split {recipe.probe_split}")
    return Splits(train, val, probe)


@dataclass
class Training:
    """What one training is made of.

    ``teacher`` takes the student's images; ``teacher_weights`` is a hash of its weights, ``teacher_probe`` the head
    that it got, if any, ``teacher_evaluation`` its validation before the training, and ``teacher_key`` what that
    depends on, empty when it is kept already. ``answers`` are those that the teacher keeps, with --kd-cache; ``probe``
    loads the images among which those of ``val`` have neighbours.
    """

    student: nn.Module
    task: TrainingTask
    teacher: FrozenTeacher | None
    data_config: DataConfig
    optimizer: AcceleratedOptimizer
    schedule: Schedule
    loader: TrainLoader
    val: EvalLoader | None
    teacher_weights: str = ""
    teacher_probe: Probe | None = None
    teacher_evaluation: Evaluation | None = None
    teacher_key: str = ""
    answers: AnswerCache | None = None
    probe: EvalLoader | None = None


def build_training(
    recipe: Recipe,
    splits: Splits,
    accelerator: Accelerator,
    start_epoch: int,
    position: SavedPosition | None,
    main: Recipe | None = None,
    folder: Path | None = None,
    probe_of: Callable[..., Probe] = find_probe,
) -> Training:
    """Build all that a wrong setting can break, before anything is written.

    ``position`` is that of the data of a saved state, None to begin with an epoch; ``main`` is the recipe of the run
    that a control belongs to, ``folder`` that of the run, which may have the teacher's probe that ``probe_of`` finds.

    Raises:
        UserError: for every pair, data or setting that cannot work.
    """
    device = accelerator.device
    set_seed(recipe.seed)  # the same initial student on every rank and with every method
    student, data_config = _build_student(recipe, splits.train.names)
    num_classes = as_timm(student).num_classes
    rank = _rank_of(recipe, accelerator)
    dtype, head = teacher_dtype(recipe, accelerator), None
    cache = open_cache(recipe, splits.train, data_config, accelerator)
    load = partial(load_run_teacher, recipe, num_classes, splits.train.names, main)
    teacher = cache.find_teacher(load, dtype) if cache else load()
    if teacher is not None and recipe.kd_teacher_probe:
        frozen = evaluated_teacher(recipe, teacher, data_config, dtype).to(device)
        head = probe_of(recipe, splits.train, frozen, data_config, num_classes, rank, accelerator, folder)
        teacher = head.on(teacher)
    teacher_weights = _hash_teacher(teacher, splits, cache)
    student = share_batch_norms(student, recipe, accelerator.num_processes, device)
    task = build_task(recipe, student, teacher, data_config, recipe.mixes, device, dtype)
    if cache is not None:
        cache.attach(task, teacher_weights)
    optimizer = _prepare(recipe, task, accelerator)
    loader = build_train_loader(recipe, splits.train, data_config, num_classes, rank, start_epoch, position)
    validation = partial(_build_validation, recipe, data_config=data_config, num_classes=num_classes, rank=rank)
    schedule = build_schedule(optimizer, recipe, loader.batches_per_epoch // recipe.grad_accum_steps)
    evaluated = teacher_of(task)
    if evaluated is None and teacher is not None:  # a student trained without it is still compared with it
        evaluated = evaluated_teacher(recipe, teacher, data_config, dtype).to(device)
    if cache is not None and cache.teacher is not None:
        loader.before_batch = cache.teacher.announce
    return Training(
        student, task, evaluated, data_config, optimizer, schedule, loader, validation(splits.val),
        teacher_weights, head, answers=cache, probe=validation(splits.probe),
    )  # fmt: skip


def _rank_of(recipe: Recipe, accelerator: Accelerator) -> Rank:
    prepare_worker = worker_preparation(recipe.device_modules)
    return Rank(accelerator.device, accelerator.process_index, accelerator.num_processes, prepare_worker)


def _build_validation(
    recipe: Recipe, split: Source | None, data_config: DataConfig, num_classes: int, rank: Rank
) -> EvalLoader | None:
    """The loader of a validation split, if there is one; its first image is read now, not after an epoch."""
    if split is None:
        return None
    check_readable(recipe, split, data_config, rank)
    return build_eval_loader(recipe, split, data_config, num_classes, rank, recipe.validation_batch_size)


def _hash_teacher(teacher: nn.Module | None, splits: Splits, cache: AnswerCache | None) -> str:
    """A hash of the teacher's weights, where something is compared by it."""
    if teacher is None or (splits.val is None and cache is None):
        return ""
    return cache.weights if cache and isinstance(teacher, AnsweredTeacher) else hash_weights(teacher)


def _build_student(recipe: Recipe, names: list[str] | None) -> tuple[nn.Module, DataConfig]:
    """The student with a class for each of the data set's ``names``, and its preprocessing."""
    student, data_config = build_student(recipe, len(names) if names and not recipe.num_classes else recipe.num_classes)
    num_classes = as_timm(student).num_classes
    if names and len(names) > num_classes:
        raise UserError(f"the data set has {len(names)} classes, the student {num_classes}: raise --num-classes")
    number_student(recipe, student, names)
    check_batch_norm(student, recipe)
    check_input_size(student, recipe.model, tuple(data_config["input_size"]))
    check_own_network(student, data_config)
    return student, data_config


def _prepare(recipe: Recipe, task: TrainingTask, accelerator: Accelerator) -> AcceleratedOptimizer:
    """Add EMA, compile, and wrap the trainable module; returns its optimizer."""
    if recipe.channels_last:
        for module in task.children():
            module.to(memory_format=torch.channels_last)
    images = recipe.batch_size * accelerator.num_processes
    optimizer = build_optimizer(task, recipe, images)  # before wrapping, which renames parameters
    if recipe.model_ema:
        device = torch.device("cpu") if recipe.model_ema_force_cpu else None
        task.setup_ema(decay=recipe.model_ema_decay, use_warmup=recipe.model_ema_warmup, device=device)
    dynamo = accelerator.state.dynamo_plugin
    teacher: nn.Module | None = getattr(task, "teacher", None)
    if recipe.torchcompile:
        task.compile(backend=recipe.torchcompile, mode=recipe.torchcompile_mode)
    elif teacher is not None and dynamo.backend != DynamoBackend.NO:  # accelerate compiles what it prepares: no teacher
        teacher.compile(**dynamo.to_kwargs())
    prepared: AcceleratedOptimizer
    task.trainable_module, prepared = accelerator.prepare(task.trainable_module, optimizer)
    return prepared


def teacher_dtype(recipe: Recipe, accelerator: Accelerator) -> torch.dtype | None:
    """The teacher's precision: what the recipe says, else that of autocast on a GPU, where it halves the memory."""
    if recipe.kd_teacher_dtype:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[recipe.kd_teacher_dtype]
    if accelerator.device.type == "cpu":
        return None
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision)
