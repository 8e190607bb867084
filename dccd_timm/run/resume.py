"""Where a training begins: at its first epoch, or where a saved state left off."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dccd_timm.batch import MeterState
from dccd_timm.data.loader import SavedPosition
from dccd_timm.engine.loop import Start
from dccd_timm.engine.optim import Groups, change_groups, initial_groups, mean_learning_rate
from dccd_timm.errors import UserError, composed
from dccd_timm.models.classes import labels_beside
from dccd_timm.recipe import Recipe
from dccd_timm.report.schema import SettingsChange
from dccd_timm.run.best import Best
from dccd_timm.run.folder import restarted
from dccd_timm.run.pieces import Training
from dccd_timm.run.settings import (
    Changes,
    changes_optimizer,
    changes_rates,
    changes_score,
    describe,
    describe_flags,
    find_changes,
    optim_before,
    read_settings,
    refuse_changes,
)
from dccd_timm.run.state import SavedProgress, SavedRank, load_state, newest_state, skipped_images

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where a training begins on this rank.

    ``state`` is the folder of the saved state and ``progress`` what it says, both None for a new training;
    ``position`` is that of the data, None where it starts with an epoch. ``skipped_images`` are those of this rank.
    ``changes`` are settings that are not those of the state, ``best`` is the best epoch so far.
    """

    start: Start
    state: Path | None = None
    progress: SavedProgress | None = None
    position: SavedPosition | None = None
    skipped_images: dict[str, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=dict)
    best: Best | None = None

    @property
    def history(self) -> list[SettingsChange]:
        """All changes of settings in the whole training, with those of this resume."""
        earlier = self.progress.changes if self.progress else []
        return [*earlier, SettingsChange(epoch=self.start.epoch, settings=self.changes)] if self.changes else earlier

    def at_whole_epoch(self, training: Training) -> "ResumePoint":
        """The beginning of the epoch, where the loader could not continue inside it."""
        if not self.start.batches or training.loader.resumed:
            return self
        return replace(self, start=replace(self.start, batches=0, meter=MeterState()))

    def check_epochs(self, num_epochs: int) -> None:
        """Check that an epoch follows that can be the best one.

        Raises:
            UserError: when the old best score means something else, and no epoch follows.
        """
        scored = self.progress.best if self.progress else None
        if scored and not self.best and self.start.epoch >= num_epochs:
            raise UserError(
                f"{describe_flags(self.changes)}: the best epoch was chosen by another measure and no epoch is left to"
                " train; keep the old value or raise --epochs"
            )

    def class_names(self, run: Path) -> list[str] | None:
        """Names of the classes that the training had, from its last export where the state does not say."""
        if self.progress is not None and self.progress.class_names:
            return [composed(name) for name in self.progress.class_names]
        labels = labels_beside(run / "last" / "model.safetensors")
        return [composed(str(name)) for name in labels] if isinstance(labels, list) else None

    def restore(self, training: Training, recipe: Recipe, accelerator: Accelerator) -> None:
        """Load the state, if there is one, into a training that was built from ``position``.

        Raises:
            UserError: for a state that does not fit, with the settings that changed.
        """
        if self.state is None or self.progress is None:
            return
        changed = describe_flags(self.changes)
        images = recipe.batch_size * accelerator.num_processes
        before = after = None
        if not recipe.no_resume_opt and self._changes_rates(recipe, accelerator):
            old = optim_before(self.changes, recipe)
            before = initial_groups(training.task, old, self._images_before(recipe))
            after = initial_groups(training.task, recipe, images)
            _check_groups(before, after, self.changes)
        load_state(self.state, training.task, accelerator, not recipe.no_resume_opt, changed)
        rate = mean_learning_rate(training.optimizer)
        if not recipe.no_resume_opt:
            training.schedule.load_state(self.progress.scheduler, same_metric=not self._rescored)
        if before and after:
            change_groups(training.optimizer, before, after, training.schedule.scheduler is not None)
        training.loader.skips.images.update(self.skipped_images)
        batches, accumulated = training.loader.batches_per_epoch, recipe.grad_accum_steps
        training.schedule.resume(self.start.epoch, self.start.updates(batches, accumulated))
        _logger.info("resuming from %s", self.state)
        self._log_changes(rate, mean_learning_rate(training.optimizer))

    @property
    def _rescored(self) -> bool:
        """Whether there was a best score that means something else now."""
        return self.progress is not None and self.progress.best != self.best

    def _images_before(self, recipe: Recipe) -> int:
        """Images of a batch over all ranks when the state was saved."""
        assert self.progress is not None
        batch_size, _ = self.changes.get("batch_size", (recipe.batch_size, None))
        return int(str(batch_size)) * self.progress.world

    def _changes_rates(self, recipe: Recipe, accelerator: Accelerator) -> bool:
        """Whether the optimizer's hyperparameters may be others than those of the state."""
        images = recipe.batch_size * accelerator.num_processes
        return changes_rates(self.changes) or images != self._images_before(recipe)

    def _log_changes(self, before: float, after: float) -> None:
        """One line about the settings that changed, and what follows from them."""
        if not self.changes:
            return
        rate = f"the learning rate goes on at {after:.4g}" + ("" if before == after else f" (before: {before:.4g})")
        line = f"resuming with other settings: {describe(self.changes)}; {rate}"
        if self._rescored:
            assert self.progress is not None and self.progress.best is not None
            best = self.progress.best
            line += f"; the best score so far, {best.metric:.4g} in epoch {best.epoch + 1}, does not count any more"
        _logger.warning("%s", line)


def find_resume_point(recipe: Recipe, folder: Path, accelerator: Accelerator) -> ResumePoint:
    """The newest whole state of the run in ``folder`` when the recipe resumes it, else the first epoch.

    Raises:
        UserError: when states were saved and none of them is whole, or settings changed that cannot.
    """
    resuming = recipe.resume or restarted()
    # one rank looks, so that all continue from the same state
    newest = newest_state(folder) if resuming and accelerator.is_main_process else None
    state = broadcast_object_list([newest])[0]
    if state is None:
        return ResumePoint(Start(recipe.start_epoch or 0))
    progress = SavedProgress.read(state)
    changes = find_changes(progress.settings or read_settings(folder), recipe)
    refuse_changes(changes, recipe)
    skipped = skipped_images(state, accelerator.process_index, accelerator.num_processes)
    rank = SavedRank.read(state, accelerator.process_index)
    start, position = _start(recipe, progress, rank, accelerator, changes)
    best = None if changes_score(changes, validates=bool(recipe.val_split)) else progress.best
    return ResumePoint(start, state, progress, position, skipped, changes, best)


def _start(
    recipe: Recipe, progress: SavedProgress, rank: SavedRank | None, accelerator: Accelerator, changes: Changes
) -> tuple[Start, SavedPosition | None]:
    """Epoch and batch to continue with, and the position of this rank's data if it can continue exactly."""
    skipped = progress.skipped_updates
    if recipe.start_epoch is not None:
        return Start(recipe.start_epoch, skipped_updates=skipped), None
    next_epoch = progress.epoch + progress.complete
    if progress.world != accelerator.num_processes:
        _logger.warning(
            "saved by %d processes and resumed by %d: weights and optimizer continue; the order of the data and the"
            " random numbers start again with epoch %d", progress.world, accelerator.num_processes, next_epoch + 1,
        )  # fmt: skip
        return Start(next_epoch, skipped_updates=skipped), None
    position = rank.position if rank else None
    if progress.complete:
        return Start(next_epoch, skipped_updates=skipped), position
    if "grad_accum_steps" in changes:
        _logger.warning("batches are accumulated otherwise than in the state: epoch %d starts again", next_epoch + 1)
        return Start(next_epoch, skipped_updates=skipped), None
    return Start(progress.epoch, progress.batches, rank.meter if rank else MeterState(), skipped), position


def _check_groups(before: Groups, after: Groups, changes: Changes) -> None:
    """Check that the optimizer's saved state fits its parameter groups."""
    if [group["params"] for group in before] != [group["params"] for group in after]:
        raise UserError(
            f"{describe_flags(changes_optimizer(changes))}: the optimizer's saved state does not fit its new parameter"
            " groups; keep the old value, or take the weights alone with --no-resume-opt"
        )
