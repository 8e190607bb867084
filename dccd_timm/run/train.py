"""The story of a training, from recipe to report; the only file that knows every stage."""

import dataclasses
import gc
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from timm.utils import distribute_bn, unwrap_model
from torch import nn

from dccd_timm.batch import Progress
from dccd_timm.data.loader import TrainLoader
from dccd_timm.data.sources import open_split
from dccd_timm.engine.evaluate import evaluate
from dccd_timm.engine.loop import Start
from dccd_timm.engine.loop import train as train_epochs
from dccd_timm.engine.optim import build_scheduler, load_scheduler_state, scheduler_state
from dccd_timm.engine.trackers import start_trackers, stop_trackers
from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.failures import explain
from dccd_timm.launch.ranks import all_together
from dccd_timm.launch.stop import StopSignals
from dccd_timm.recipe import Recipe
from dccd_timm.report.console import start_block
from dccd_timm.report.pictures import draw_views
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import append_epoch
from dccd_timm.run import state as checkpoint
from dccd_timm.run.best import Best, choose_weights, is_better, validates_ema
from dccd_timm.run.facts import start_facts
from dccd_timm.run.finish import finish, push_so_far
from dccd_timm.run.folder import begin, lock, restarted, run_folder, unlock
from dccd_timm.run.pieces import Splits, Training, build_training
from dccd_timm.run.publisher import Publisher
from dccd_timm.task.build import term_weights

_logger = logging.getLogger(__name__)


def train(recipe: Recipe, publisher: Publisher) -> Report:
    """Train as the recipe says, its control run first if it names one; returns its report.

    Raises:
        UserError: for every mistake of settings, data or surroundings.
    """
    accelerator = start_accelerator(recipe)
    place = Path(recipe.output)
    with all_together(lambda error: explain(error, recipe, place)):
        if accelerator.is_main_process:
            publisher.check()  # now, and not after a week
        train_split = open_split(recipe, recipe.train_split, True, recipe.train_num_samples)
        val_split = None
        if recipe.val_split:
            val_split = open_split(recipe, recipe.val_split, False, recipe.val_num_samples)
        splits = Splits(train_split, val_split)
        place = run_folder(recipe, accelerator)
        control = None
        if recipe.dccd_control:
            control = Report.read(place / "control") if recipe.resume or restarted() else None
            if control is None:
                settings = dataclasses.replace(
                    recipe, kd_distill_type=recipe.dccd_control, dccd_control=None, push_to_hub=None, hub_public=False,
                    hub_revision=None, hub_interval=0, hub_license=None,
                )  # fmt: skip
                control = train_one(settings, splits, place / "control", accelerator, None, publisher)
                accelerator.free_memory()
        result = train_one(recipe, splits, place, accelerator, control, publisher)
        accelerator.free_memory()
        gc.collect()  # a process group that outlives DDP's reducer can abort the interpreter at its end
        accelerator.end_training()
    if accelerator.is_main_process:  # last: a push that fails leaves a finished run
        publisher.push(place)
    return result


def train_one(
    recipe: Recipe,
    splits: Splits,
    folder: Path,
    accelerator: Accelerator,
    control: Report | None,
    publisher: Publisher,
) -> Report:
    """One training into ``folder``; ``control`` is the report of the run to compare with."""
    main = accelerator.is_main_process
    # a resumed run's folder is locked before anything is read; a new one is not made before all is well
    held = lock(folder) if main and folder.exists() else None
    accelerator.wait_for_everyone()
    # one rank looks, so that all go on from the same
    resuming = recipe.resume or restarted()
    state = broadcast_object_list([checkpoint.newest_state(folder) if resuming and main else None])[0]
    saved, position, start = _where(recipe, state, accelerator)
    training = build_training(recipe, splits, accelerator, start.epoch, position)
    task, loader = training.task, training.loader
    scheduler, num_epochs = build_scheduler(training.optimizer, recipe, _updates_per_epoch(recipe, loader))
    if start.epoch >= num_epochs and Report.read(folder):
        raise UserError(f"{folder} is trained already, {start.epoch} of {num_epochs} epochs: raise --epochs to go on")
    set_seed(recipe.seed + start.epoch, device_specific=True)  # dropout differs between ranks
    if state:
        checkpoint.load_state(state, task, accelerator, with_optimizer=not recipe.no_resume_opt)
        load_scheduler_state(scheduler, saved["scheduler"] if saved else {})
        _logger.info("going on from %s", state)
    loader.prepare.set_epoch(start.epoch)
    first = loader.peek()
    if main:
        held = held or lock(folder)
        checkpoint.tidy(folder)
        begin(folder, recipe)
        if not saved:
            normal, names = (training.data_config["mean"], training.data_config["std"]), splits.train.names
            draw_views(folder, first.views, first.target, *normal, names)
        print(start_block(recipe, start_facts(recipe, splits, training, accelerator, num_epochs, folder)), flush=True)
    accelerator.wait_for_everyone()
    start_trackers(accelerator, recipe, folder)

    best = Best.from_json(saved["best"]) if saved and saved["best"] else None
    skipped_updates = 0
    began = time.perf_counter()
    signals = StopSignals()

    def save(progress: Progress, complete: bool) -> None:
        kept = dict(
            epoch=progress.epoch, complete=complete, updates=progress.updates, batches=progress.batches,
            meter=progress.meter, world=accelerator.num_processes, best=best and best.to_json(),
            scheduler=scheduler_state(scheduler),
        )  # fmt: skip
        checkpoint.save_state(folder, task, accelerator, kept, loader.state(), recipe.checkpoint_hist)

    for progress in train_epochs(
        task, loader, training.optimizer, scheduler, recipe, accelerator, start, num_epochs, signals.came
    ):
        skipped_updates = progress.skipped_updates
        if not progress.complete:
            save(progress, complete=False)
            if progress.stop:
                signals.leave(folder)
            continue
        if accelerator.num_processes > 1 and recipe.dist_bn and not recipe.sync_bn:
            distribute_bn(unwrap_model(task.trainable_module), accelerator.num_processes, recipe.dist_bn == "reduce")
        due = (progress.epoch + 1) % recipe.val_interval == 0 or progress.epoch + 1 == num_epochs
        metrics: dict[str, float] | None = {}
        if training.val is not None and due:
            metrics = _validate(training, accelerator, recipe, signals.came)
        if metrics is None:  # stopped in the middle: a resume begins with this validation
            save(progress, complete=False)
            signals.leave(folder)
        metric = metrics.get(recipe.eval_metric) if training.val is not None else progress.losses["loss"]
        better = metric is not None and is_better(recipe, metric, best, validated=training.val is not None)
        if metric is not None and better:
            best = Best(progress.epoch, metric, metrics)
        if scheduler is not None:
            scheduler.step(progress.epoch + 1, metric)
        if main:
            note = {"dccd_timm": {"method": recipe.kd_distill_type, "epoch": progress.epoch, **metrics}}
            student: nn.Module = task.get_eval_model(ema=validates_ema(recipe))
            for word in ("last", "best") if better else ("last",):
                checkpoint.export(student, folder / word, training.data_config, splits.train.names, note)
            append_epoch(folder, progress, metrics, with_eval=training.val is not None)
            if best and recipe.hub_interval and (progress.epoch + 1) % recipe.hub_interval == 0 and not progress.stop:
                push_so_far(recipe, training, folder, best, progress.epoch + 1, num_epochs, publisher)
        numbers = {f"train_{k}": v for k, v in progress.losses.items()} | {f"eval_{k}": v for k, v in metrics.items()}
        accelerator.log(numbers | {"lr": progress.lr, "epoch": progress.epoch}, step=progress.updates)
        save(progress, complete=True)
        if progress.stop:
            signals.leave(folder)
    signals.close()
    loader.close()
    stop_trackers(accelerator)
    weights, best = choose_weights(recipe, splits, training, folder, accelerator, best, num_epochs - 1)
    images = recipe.batch_size * loader.batches_per_epoch * num_epochs * accelerator.num_processes
    report = Report(
        method=recipe.kd_distill_type,
        terms=term_weights(task),
        views=recipe.dccd_views,
        views_seen=images * recipe.dccd_views,
        epochs=num_epochs,
        seconds=round(time.perf_counter() - began, 1),
        best_epoch=best.epoch if best else None,
        weights=weights,
        license=recipe.hub_license,
        skipped_updates=skipped_updates,
        skipped_images=loader.skips.count,
        skipped_first=loader.skips.names[:20],
    )
    report = finish(recipe, splits, training, folder, accelerator, report, control, publisher)
    if held:
        unlock(held)
    return report


def _where(
    recipe: Recipe, state: Path | None, accelerator: Accelerator
) -> tuple[dict[str, Any] | None, dict[str, Any] | None, Start]:
    """What was saved, where this rank's data stood, and where to begin."""
    if state is None:
        return None, None, Start(recipe.start_epoch or 0)
    saved = checkpoint.saved_progress(state)
    position = checkpoint.saved_position(state, accelerator.process_index)
    if recipe.start_epoch is not None:
        return saved, None, Start(recipe.start_epoch)
    if saved["world"] != accelerator.num_processes:
        _logger.warning(
            "saved by %d processes and resumed by %d: weights and optimizer go on; data order and random numbers begin"
            " at epoch %d anew", saved["world"], accelerator.num_processes, saved["epoch"] + 1 + saved["complete"],
        )  # fmt: skip
        return saved, None, Start(saved["epoch"] + saved["complete"])
    meter = position.pop("meter") if position else {}
    if saved["complete"]:
        return saved, position, Start(saved["epoch"] + 1)
    return saved, position, Start(saved["epoch"], saved["batches"], meter)


def _validate(
    training: Training, accelerator: Accelerator, recipe: Recipe, stopping: Callable[[], bool]
) -> dict[str, float] | None:
    """Metrics of the student, or of its average when there is one, as timm's train.py reports them."""
    model: nn.Module = training.task.get_eval_model(ema=validates_ema(recipe))
    assert training.val is not None
    evaluator = training.task.create_evaluator()
    return evaluate(model, training.val, accelerator, evaluator, channels_last=recipe.channels_last, stopping=stopping)


def _updates_per_epoch(recipe: Recipe, loader: TrainLoader) -> int:
    return loader.batches_per_epoch // recipe.grad_accum_steps
