"""A plan: everything that a start checks, and what the training would take; nothing is trained or written."""

import dataclasses
import logging
import math
import os

from accelerate import Accelerator

from dccd_timm.data.build import Rank, batches_per_epoch
from dccd_timm.data.rate import images_per_second
from dccd_timm.errors import UserError, one_line
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.modules import worker_preparation
from dccd_timm.models.timm_model import as_timm
from dccd_timm.plan.devices import Device, find_device
from dccd_timm.plan.fit import largest_batch, same_update, usable
from dccd_timm.plan.report import Fit, Loading, Network, Plan, Time
from dccd_timm.plan.step import EMA, OPTIMIZER, WEIGHTS, Surroundings, step_flops
from dccd_timm.recipe import Recipe
from dccd_timm.run.begin import networks_gmacs
from dccd_timm.run.folder import choose_folder
from dccd_timm.run.memory import parts_function
from dccd_timm.run.pieces import Splits, Training, build_training, open_splits
from dccd_timm.run.probe import untrained_probe
from dccd_timm.run.publisher import Publisher
from dccd_timm.run.settings import find_changes, read_settings, refuse_changes
from dccd_timm.task.dccd import DCCDTask

_logger = logging.getLogger(__name__)

# Shares of the device's peak
_SHARES = (1.0, 0.5, 0.3)
_ASSUMED = 0.5


def print_plan(recipe: Recipe, publisher: Publisher) -> None:
    """Print what :func:`plan_training` finds out, for people or as JSON.

    Raises:
        UserError: for every mistake that would end the training's start, and for several processes.
    """
    plan = plan_training(recipe, publisher)
    print(plan.json() if recipe.plan_json else plan.text(), flush=True)


def plan_training(recipe: Recipe, publisher: Publisher) -> Plan:
    """Open, build and check what a training of ``recipe`` would, and find out what it takes.

    Raises:
        UserError: for every mistake that would end the training's start, and for several processes.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("--plan runs in one process: start it without a launcher, with --plan-gpus N")
    device = find_device(recipe.plan_device)
    here = _on_this_machine(recipe, device)
    accelerator = start_accelerator(dataclasses.replace(here, amp_dtype="bfloat16"))
    publisher.check()
    folder = choose_folder(recipe, accelerator)
    if recipe.resume:
        refuse_changes(find_changes(read_settings(folder), recipe), recipe)
    here = dataclasses.replace(here, torchcompile=None, kd_cache=None)  # planned as it fills its answers
    splits = open_splits(here)
    training = build_training(here, splits, accelerator, 0, None, probe_of=untrained_probe)
    return _Planner(here, splits, training, accelerator, device).plan()


def _on_this_machine(recipe: Recipe, device: Device) -> Recipe:
    """The recipe for this CPU, with the precisions of the ``device`` as far as they take the same memory."""
    teacher_dtype = recipe.kd_teacher_dtype
    if recipe.amp and device.is_gpu and not teacher_dtype:
        teacher_dtype = "bfloat16"
    if teacher_dtype == "float16":
        teacher_dtype = "bfloat16"
    return dataclasses.replace(recipe, device="cpu", kd_teacher_dtype=teacher_dtype, pin_mem=False)


class _Planner:
    """What :func:`plan_training` knows of a training."""

    def __init__(
        self, recipe: Recipe, splits: Splits, training: Training, accelerator: Accelerator, device: Device
    ) -> None:
        self.recipe, self.splits, self.training, self.device = recipe, splits, training, device
        self.where = Surroundings(device.is_gpu, recipe.plan_gpus, accelerator.mixed_precision, device.is_gpu)
        self.input_size = training.data_config["input_size"]
        self.parts_of = parts_function(recipe, training, self.where)
        self.num_classes: int = as_timm(training.student).num_classes
        self.precision = "float32"
        if self.where.mixed_precision != "no":
            self.precision = recipe.amp_dtype if device.is_gpu else "bfloat16"
        self.updates = batches_per_epoch(recipe, splits.train, recipe.plan_gpus) // recipe.grad_accum_steps
        prepare_worker = worker_preparation(recipe.device_modules)
        self.rank = Rank(accelerator.device, worker_init_fn=prepare_worker)

    def plan(self) -> Plan:
        """All of it."""
        recipe, training = self.recipe, self.training
        memory, fit, flops = self._step()
        times = [self._time(flops, share) for share in _SHARES] if flops and self._peak() else []
        weights = sum(p.numel() * p.element_size() for p in training.student.state_dict().values())
        student, teacher = self._networks()
        return Plan(
            device=self.device.name,
            ranks=recipe.plan_gpus,
            precision=self.precision,
            student=student,
            teacher=teacher,
            images=self.splits.train.num_samples,
            classes=self.num_classes,
            batch_size=recipe.batch_size,
            views=recipe.dccd_views,
            grad_accum_steps=recipe.grad_accum_steps,
            updates_per_epoch=self.updates,
            epochs=training.schedule.num_epochs,
            controls=recipe.dccd_control,
            memory=memory,
            fit=fit,
            network_bytes=self._network_bytes(),
            flops=flops,
            times=times,
            loading=self._loading(times),
            state_bytes=memory[WEIGHTS] + memory[OPTIMIZER] + memory[EMA] if memory else None,
            states=min(recipe.checkpoint_hist, training.schedule.num_epochs),
            export_bytes=2 * weights,
        )

    def _step(self) -> tuple[dict[str, int] | None, Fit | None, int | None]:
        """Memory by part, whether it fits, and operations; None of a step that fake tensors cannot make."""
        recipe = self.recipe
        try:
            memory, fit = self.parts_of(recipe.batch_size, recipe.grad_accum_steps), self._fit()
            return memory, fit, step_flops(self.training.task, recipe, self.input_size, recipe.batch_size, self.where)
        except Exception as error:  # whatever a network or optimizer does with values that are not there
            _logger.warning(
                "memory and time are not known: a step on tensors without numbers fails (%s)", one_line(error)
            )
            return None, None, None

    def _fit(self) -> Fit | None:
        """How the step fits into the device's memory; None where that is not known."""
        if self.device.memory is None:
            return None

        def memory_of(batch_size: int, accumulated: int) -> int:
            return sum(self.parts_of(batch_size, accumulated).values())

        size, accumulated, limit = self.recipe.batch_size, self.recipe.grad_accum_steps, usable(self.device.memory)
        fits = memory_of(size, accumulated) <= limit
        smaller = None if fits else same_update(memory_of, size, accumulated, limit)
        return Fit(
            memory=self.device.memory,
            usable=limit,
            fits=fits,
            largest_batch=largest_batch(memory_of, size, accumulated, limit),
            batch_size=smaller.size if smaller else None,
            grad_accum_steps=smaller.accumulated if smaller else None,
        )

    def _peak(self) -> float | None:
        return self.device.float32 if self.where.mixed_precision == "no" else self.device.lower

    def _time(self, flops: int, share: float) -> Time:
        peak = self._peak()
        assert peak is not None
        seconds = flops * self.recipe.grad_accum_steps / (peak * share)
        updates = self.updates * self.training.schedule.num_epochs
        return Time(share=share, update_seconds=seconds, hours=seconds * updates / 3600)

    def _loading(self, times: list[Time]) -> Loading:
        given = images_per_second(
            self.recipe, self.splits.train, self.training.data_config, self.num_classes, self.rank
        )
        workers = max(1, self.recipe.workers)
        images = (
            self.updates * self.training.schedule.num_epochs * self.recipe.batch_size * self.recipe.grad_accum_steps
        )
        half = next((time for time in times if time.share == _ASSUMED), None)
        needed = self.recipe.batch_size * self.recipe.grad_accum_steps / half.update_seconds if half else None
        return Loading(
            per_core=given,
            workers=workers,
            hours=images / (workers * given) / 3600,
            needed=needed,
            needed_workers=math.ceil(needed / given) if needed else None,
        )

    def _network_bytes(self) -> int:
        """What a rank sends in an update: gradients and the contrast's sums around a ring; the first one also sends its
        buffers."""
        recipe, task = self.recipe, self.training.task
        ranks, trainable = recipe.plan_gpus, task.get_trainable_module()
        if ranks == 1 or trainable is None:
            return 0
        around = sum(p.numel() * p.element_size() for p in trainable.parameters() if p.requires_grad)
        if isinstance(task, DCCDTask) and "contrast_loss" in task.term_weights:
            info = as_timm(task.teacher.model).feature_info
            sums = sum(task.contrast.numbers_summed(info[stage]["num_chs"]) for stage in task.teacher_stages)
            around += 4 * sums * recipe.grad_accum_steps
        buffers = 0 if recipe.no_ddp_bb else sum(b.numel() * b.element_size() for b in trainable.buffers())
        return int(2 * (ranks - 1) / ranks * around) + buffers

    def _networks(self) -> tuple[Network, Network | None]:
        recipe, training, gmacs = self.recipe, self.training, networks_gmacs(self.training)
        parameters = sum(p.numel() for p in training.student.parameters())
        student = Network(name=recipe.model, parameters=parameters, gmacs=gmacs["student"])
        if training.teacher is None or recipe.kd_model_name is None:
            return student, None
        teacher = training.teacher
        return student, Network(name=recipe.kd_model_name, parameters=teacher.num_parameters, gmacs=gmacs["teacher"])
