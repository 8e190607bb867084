"""Where a training begins: at its first epoch, or where a saved state left off."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from dccd_timm.batch import MeterState
from dccd_timm.data.loader import SavedPosition
from dccd_timm.engine.loop import Start
from dccd_timm.models.classes import labels_beside
from dccd_timm.recipe import Recipe
from dccd_timm.run.folder import restarted
from dccd_timm.run.pieces import Training
from dccd_timm.run.state import SavedProgress, SavedRank, load_state, newest_state, skipped_images

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """Where a training begins on this rank.

    ``state`` is the folder of the saved state and ``progress`` what it says, both None for a new training;
    ``position`` is that of the data, None where it starts with an epoch. ``skipped_images`` are those of this rank.
    """

    start: Start
    state: Path | None = None
    progress: SavedProgress | None = None
    position: SavedPosition | None = None
    skipped_images: dict[str, int] = field(default_factory=dict)

    def class_names(self, run: Path) -> list[str] | None:
        """Names of the classes that the training had, from its last export where the state does not say."""
        if self.progress is not None and self.progress.class_names:
            return self.progress.class_names
        labels = labels_beside(run / "last" / "model.safetensors")
        return [str(name) for name in labels] if isinstance(labels, list) else None

    def restore(self, training: Training, recipe: Recipe, accelerator: Accelerator) -> None:
        """Load the state, if there is one, into a training that was built from ``position``."""
        if self.state is None or self.progress is None:
            return
        load_state(self.state, training.task, accelerator, with_optimizer=not recipe.no_resume_opt)
        training.schedule.load_state(self.progress.scheduler)
        training.loader.skips.images.update(self.skipped_images)
        _logger.info("resuming from %s", self.state)


def find_resume_point(recipe: Recipe, folder: Path, accelerator: Accelerator) -> ResumePoint:
    """The newest whole state of the run in ``folder`` when the recipe resumes it, else the first epoch.

    Raises:
        UserError: when states were saved and none of them is whole.
    """
    resuming = recipe.resume or restarted()
    # one rank looks, so that all continue from the same state
    newest = newest_state(folder) if resuming and accelerator.is_main_process else None
    state = broadcast_object_list([newest])[0]
    if state is None:
        return ResumePoint(Start(recipe.start_epoch or 0))
    progress = SavedProgress.read(state)
    skipped = skipped_images(state, accelerator.process_index, accelerator.num_processes)
    start, position = _start(recipe, progress, SavedRank.read(state, accelerator.process_index), accelerator)
    return ResumePoint(start, state, progress, position, skipped)


def _start(
    recipe: Recipe, progress: SavedProgress, rank: SavedRank | None, accelerator: Accelerator
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
    return Start(progress.epoch, progress.batches, rank.meter if rank else MeterState(), skipped), position
