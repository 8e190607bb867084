"""One student from its recipe to its report: build, resume, train, evaluate."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from dccd_timm.batch import Progress
from dccd_timm.engine.loop import train as train_epochs
from dccd_timm.engine.trackers import start_trackers, stop_trackers
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.report.schema import Report
from dccd_timm.run.begin import begin_run
from dccd_timm.run.classes import number_resumed
from dccd_timm.run.epoch import EpochEnd
from dccd_timm.run.finish import finish
from dccd_timm.run.folder import FolderLock, UntrainedFolder, existing_parent, write_settings, written_changes
from dccd_timm.run.memory import naming_what_fits
from dccd_timm.run.pieces import Splits, Training, build_training
from dccd_timm.run.publisher import Publisher
from dccd_timm.run.resume import ResumePoint, find_resume_point
from dccd_timm.run.teacher import evaluate_teacher


def train_student(
    recipe: Recipe,
    splits: Splits,
    folder: Path,
    accelerator: Accelerator,
    publisher: Publisher,
    untrained: UntrainedFolder,
    controls: Sequence[Report] = (),
    main: Recipe | None = None,
) -> Report:
    """Train one student into ``folder``; ``controls`` are the reports of those that it is compared with.

    A control itself lies in the folder of the run that it belongs to, whose recipe is ``main``.
    """
    lock = FolderLock(folder, accelerator)
    lock.acquire_existing()  # before anything is read; a new folder is made once all is well
    accelerator.wait_for_everyone()
    point = find_resume_point(recipe, folder, accelerator)
    if point.state is not None:
        number_resumed(splits.train, splits.val, point.class_names(folder), folder)
    training = build_training(recipe, splits, accelerator, point.start.epoch, point.position, main, folder)
    if point.start.epoch >= training.schedule.num_epochs and Report.read(folder):
        raise UserError(f"{folder} is trained already, for {point.start.epoch} epochs: raise --epochs to continue")
    point.check_epochs(training.schedule.num_epochs)
    point = point.at_whole_epoch(training)
    set_seed(recipe.seed + point.start.epoch, device_specific=True)  # dropout differs between ranks
    point.restore(training, recipe, accelerator)
    training.loader.prepare.set_epoch(point.start.epoch)
    training.loader.peek()  # bad data of any rank stops the run before anything is written
    accelerator.wait_for_everyone()
    evaluate_teacher(recipe, splits, training, folder, accelerator, resumed=point.state is not None)
    run, existing = folder.parent if main else folder, existing_parent(folder)
    lock.acquire()
    if accelerator.is_main_process:
        untrained.watch(run, existing, training.optimizer.optimizer)
    if main and accelerator.is_main_process:  # what --resume of that folder reads, if this training is interrupted
        write_settings(folder.parent, main, written_changes(folder.parent), (folder.parent / "state").is_dir())
    begin_run(recipe, splits, training, folder, accelerator, point)
    start_trackers(accelerator, recipe, folder)
    after_epoch = EpochEnd(recipe, splits, training, folder, accelerator, publisher, point, run)
    for progress in _epochs(recipe, training, accelerator, point, after_epoch.signals.came):
        after_epoch.handle(progress)
    stop_trackers(accelerator, folder)
    report = finish(recipe, splits, training, folder, accelerator, after_epoch.end_training(), controls, publisher)
    lock.release()
    return report


def _epochs(
    recipe: Recipe, training: Training, accelerator: Accelerator, point: ResumePoint, stopping: Callable[[], bool]
) -> Iterator[Progress]:
    """The epochs of a training from ``point`` on; one that runs out of memory names a batch that fits."""
    epochs = train_epochs(
        training.task, training.loader, training.optimizer, training.schedule, recipe, accelerator, point.start,
        stopping,
    )  # fmt: skip
    return naming_what_fits(epochs, recipe, training, accelerator)
