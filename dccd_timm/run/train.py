"""A training from recipe to report."""

import dataclasses
import gc
import logging
from pathlib import Path

from accelerate import Accelerator

from dccd_timm.engine.optim import num_epochs
from dccd_timm.errors import UserError
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.launch.failures import explain
from dccd_timm.launch.ranks import all_together
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.methods import METHODS
from dccd_timm.recipe.rules import advice
from dccd_timm.report.schema import Report
from dccd_timm.run.folder import UntrainedFolder, choose_folder, control_folder, restarted
from dccd_timm.run.pieces import Splits, open_splits
from dccd_timm.run.publisher import Publisher
from dccd_timm.run.settings import find_changes, read_settings, refuse_changes
from dccd_timm.run.state import newest_state
from dccd_timm.run.student import train_student

_logger = logging.getLogger(__name__)


def train(recipe: Recipe, publisher: Publisher) -> Report:
    """Train as the recipe says, first the controls that it names.

    Raises:
        UserError: for every mistake of settings, data or surroundings.
    """
    accelerator = start_accelerator(recipe)
    folder, untrained = Path(recipe.output), UntrainedFolder()
    with all_together(lambda error: explain(error, recipe, folder), untrained.remove):
        if accelerator.is_main_process:
            for line in advice(recipe):
                _logger.warning(line)
            publisher.check()  # now, not after a week
        folder = choose_folder(recipe, accelerator)
        if recipe.resume:  # before a control goes on in vain
            refuse_changes(find_changes(read_settings(folder), recipe), recipe)
        splits = open_splits(recipe)
        controls = [
            train_control(recipe, method, splits, folder, accelerator, publisher, untrained)
            for method in recipe.dccd_control
        ]
        if controls and accelerator.is_main_process:
            _logger.info("now %s", METHODS[recipe.kd_distill_type].student_label(recipe.kd_loss_type))
        report = train_student(recipe, splits, folder, accelerator, publisher, untrained, controls)
        accelerator.free_memory()
        gc.collect()  # a process group that outlives DDP's reducer can abort the interpreter at its end
        accelerator.end_training()
    if accelerator.is_main_process:  # last: a push that fails leaves a finished run
        publisher.push(folder)
    return report


def train_control(
    recipe: Recipe,
    method: str,
    splits: Splits,
    run: Path,
    accelerator: Accelerator,
    publisher: Publisher,
    untrained: UntrainedFolder,
) -> Report:
    """Train a student that is compared with ours, in the folder ``run``: the same recipe with a ``method`` of
    --dccd-control, never pushed."""
    folder = control_folder(run, recipe, method)
    _check_method(recipe, method, folder)
    report = Report.read(folder) if recipe.resume or restarted() else None
    if report and (report.epochs >= num_epochs(recipe) or newest_state(folder) is None):
        return report
    if accelerator.is_main_process:
        label = METHODS[method].student_label(recipe.kd_loss_type)
        _logger.info("control %d of %d: %s", recipe.dccd_control.index(method) + 1, len(recipe.dccd_control), label)
    settings = dataclasses.replace(
        recipe, kd_distill_type=method, kd_cache=_control_cache(recipe, method), dccd_control=(),
        push_to_hub=None, hub_public=False, hub_revision=None, hub_interval=0, hub_license=None, hub_overwrite=False,
    )  # fmt: skip
    report = train_student(settings, splits, folder, accelerator, publisher, untrained, main=recipe)
    accelerator.free_memory()
    return report


def _control_cache(recipe: Recipe, method: str) -> str | None:
    """The folder of a control's answers: other methods need other parts of them."""
    kept = recipe.kd_cache and METHODS[method].cached
    return str(Path(recipe.kd_cache or "") / f"control-{method}") if kept else None


def _check_method(recipe: Recipe, wanted: str, folder: Path) -> None:
    """Check that a control that was begun is of the method that is wanted.

    Raises:
        UserError: when it is another one's.
    """
    method = read_settings(folder).get("kd_distill_type", wanted)
    if recipe.resume and method != wanted:
        raise UserError(
            f"--dccd-control {method} -> {wanted}: {folder} holds the other control; keep {method}, or"
            " delete that folder"
        )
