"""What happens after each epoch: validate, compare with the best, export, record, publish, save."""

import logging
import time
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dccd_timm.batch import Progress
from dccd_timm.data.collate import check_limit
from dccd_timm.engine.statistics import share_statistics
from dccd_timm.errors import logged_failure
from dccd_timm.launch.stop import StopSignals
from dccd_timm.recipe import Recipe
from dccd_timm.report.console import epoch_line
from dccd_timm.report.schema import NAMED, Report, SplitReport, SplitReports
from dccd_timm.report.summary import append_epoch, metric_columns
from dccd_timm.run.best import Best, choose_weights, is_better, validated_weights, validates_ema
from dccd_timm.run.export import export
from dccd_timm.run.finish import push_interim
from dccd_timm.run.pieces import Splits, Training
from dccd_timm.run.publisher import Publisher
from dccd_timm.run.resume import ResumePoint
from dccd_timm.run.score import score
from dccd_timm.run.settings import plain_settings
from dccd_timm.run.state import SavedProgress, SavedRank, record_best, save_state
from dccd_timm.task.build import term_weights

_logger = logging.getLogger(__name__)


class EpochEnd:
    """Does what follows each epoch of a training, and saves it in between.

    ``run`` is the folder to resume: the run's own, or for a control that of the run that it belongs to. ``best`` is the
    best epoch so far; ``skipped_updates`` are those of the whole training.
    """

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        training: Training,
        folder: Path,
        accelerator: Accelerator,
        publisher: Publisher,
        resumed: ResumePoint,
        run: Path,
    ) -> None:
        self.run = run
        self.recipe, self.splits, self.training, self.folder = recipe, splits, training, folder
        self.accelerator, self.publisher = accelerator, publisher
        self.best: Best | None = resumed.best
        self.skipped_updates = resumed.start.skipped_updates
        self.resumed = resumed
        self.images = resumed.progress.images if resumed.progress else 0
        self.views = resumed.progress.views if resumed.progress else 0
        self.began = time.perf_counter() - (resumed.progress.seconds if resumed.progress else 0)
        self.started = self.epoch_began = time.perf_counter()
        self.first_epoch = resumed.start.epoch
        self.signals = StopSignals()

    def handle(self, progress: Progress) -> None:
        """Do all that follows an epoch and save, or only save inside one.

        Raises:
            SystemExit: when this rank or another one was told to stop; the state is saved.
        """
        self.skipped_updates = progress.skipped_updates
        self._count(progress)
        if self.training.answers and (progress.complete or progress.stop):
            self.training.answers.end_epoch()
        # a validation that is interrupted is repeated by the resume
        done = progress.complete and self._end_epoch(progress)
        self._save(progress, done)
        if progress.stop or progress.complete != done:
            self.signals.leave(self.run)

    def end_training(self) -> Report:
        """Close signals and loader, choose between plain and averaged weights, and report the training itself."""
        recipe, training, num_epochs = self.recipe, self.training, self.training.schedule.num_epochs
        self.signals.close()
        training.loader.close()
        if training.answers:
            training.answers.close()
        best = choose_weights(recipe, self.splits, training, self.folder, self.accelerator, self.best, num_epochs - 1)
        if best is not None and best != self.best and self.accelerator.is_main_process:
            record_best(self.folder, best)  # or a longer training would replace it by a student that is worse
        self.best = best
        skipped = self._skipped_images()
        images_skipped = sum(skipped.values())
        split = SplitReport(
            name=recipe.train_split, images=max(training.loader.source.num_samples - images_skipped, 0),
            skipped=images_skipped,
        )  # fmt: skip
        return Report(
            method=recipe.kd_distill_type,
            loss_type=recipe.kd_loss_type,
            terms=term_weights(training.task),
            views=recipe.dccd_views,
            images_seen=self.images,
            views_seen=self.views,
            epochs=num_epochs,
            seconds=round(self._seconds(), 1),
            best_epoch=best.epoch if best else None,
            weights=best.weights if best else None,
            license=recipe.hub_license,
            changes=self.resumed.history,
            skipped_updates=self.skipped_updates,
            skipped_images=images_skipped,
            skipped_first=list(skipped)[:NAMED],
            splits=SplitReports(train=split),
        )

    def _count(self, progress: Progress) -> None:
        """Images and views of the whole training so far, over all ranks."""
        seen: list[tuple[int, int]] = gather_object([(progress.images, progress.views)])
        before = self.resumed.progress
        self.images = (before.images if before else 0) + sum(images for images, _ in seen)
        self.views = (before.views if before else 0) + sum(views for _, views in seen)

    def _seconds(self) -> float:
        """Seconds of the whole training so far."""
        return time.perf_counter() - self.began

    def _skipped_images(self) -> dict[str, int]:
        """Images of the whole training that no rank could read, with how many each name stands for.

        Raises:
            UserError: when they are more than may be skipped.
        """
        parts: list[dict[str, int]] = gather_object([self.training.loader.skips.images])
        skipped = {name: count for part in parts for name, count in part.items()}
        check_limit(skipped, self.recipe.max_data_errors)  # each rank checks only its own while it reads
        return skipped

    def _end_epoch(self, progress: Progress) -> bool:
        """Do what follows an epoch; False when its validation was interrupted."""
        self._share_statistics()
        metrics = self._validate(progress.epoch)
        if metrics is None:
            return False
        validates = self.training.val is not None
        metric = metrics.get(self.recipe.score) if validates else progress.losses["loss"]
        best = self.best
        if metric is not None and is_better(self.recipe, metric, self.best):
            self.best = Best(progress.epoch, metric, metrics, validated_weights(self.recipe))
        if self.accelerator.is_main_process:
            try:
                self._write(progress, metrics, better=self.best is not best)
            except Exception:  # whatever a network or a disk does: the resume ends this epoch anew
                self.best = best
                self._save(progress, complete=False)
                raise
        self.training.schedule.end_epoch(progress.epoch, metric)
        numbers = {f"train_{k}": v for k, v in progress.losses.items()} | {f"eval_{k}": v for k, v in metrics.items()}
        with logged_failure(f"epoch {progress.epoch + 1} is not in the tracker", self.folder):
            self.accelerator.log(numbers | {"lr": progress.lr, "epoch": progress.epoch}, step=progress.updates)
        return True

    def _share_statistics(self) -> None:
        """Give all ranks the same BatchNorm statistics, plain and averaged, so that what they evaluate is exported.

        --dist-bn says which ones; without it they are those of rank 0, which exports.
        """
        task, recipe = self.training.task, self.recipe
        if self.accelerator.num_processes == 1 or recipe.sync_bn:
            return
        for module in (task.get_trainable_module(), task.get_trainable_module(ema=True)):
            if module is not None:
                share_statistics(module, self.accelerator, mean=recipe.dist_bn == "reduce")

    def _validate(self, epoch: int) -> dict[str, float] | None:
        """Metrics of the student or of its average; none in epochs without validation, None when it is interrupted."""
        due = (epoch + 1) % self.recipe.val_interval == 0 or epoch + 1 == self.training.schedule.num_epochs
        if self.training.val is None or not due:
            return {}
        recipe, ema = self.recipe, validates_ema(self.recipe)
        metrics = score(recipe, self.training, self.accelerator, self._student(), self.signals.came, ema)
        if metrics and metrics.get("skipped"):
            first = next(iter(self.training.val.skips.images), "one of another rank")
            check_limit({first: int(metrics["skipped"])}, recipe.max_data_errors)
        return metrics

    def _student(self) -> nn.Module:
        student = self.training.task.get_eval_model(ema=validates_ema(self.recipe))
        assert student is not None
        # DDP would send buffers at each batch, of which ranks may have different numbers
        return student.module if isinstance(student, DistributedDataParallel) else student

    def _write(self, progress: Progress, metrics: dict[str, float], better: bool) -> None:
        """Write what an epoch leaves beside its state: exports, its row, and an interim push."""
        self._export(progress.epoch, metrics, better)
        epochs = self.training.schedule.num_epochs
        append_epoch(self.folder, progress, metrics, metric_columns(self.recipe))
        self._log(progress, epochs, metrics)
        if not progress.stop:
            self._push_interim(progress.epoch + 1)

    def _log(self, progress: Progress, epochs: int, metrics: dict[str, float]) -> None:
        """Log an epoch, with the time that the others will take if they are as long as those of this process."""
        now = time.perf_counter()
        left = (now - self.started) / (progress.epoch + 1 - self.first_epoch) * (epochs - progress.epoch - 1)
        best, shown = None, "knn" if self.recipe.is_unlabelled else "top1"
        if self.best and shown in self.best.metrics:
            best = self.best.epoch, self.best.metrics[shown]
        _logger.info("%s", epoch_line(progress, epochs, metrics, best, now - self.epoch_began, left))
        self.epoch_began = now

    def _export(self, epoch: int, metrics: dict[str, float], better: bool) -> None:
        note = {"dccd_timm": {"method": self.recipe.kd_distill_type, "epoch": epoch, **metrics}}
        for name in ("last", "best") if better else ("last",):
            export(self._student(), self.folder / name, self.training.data_config, self.splits.train.names, note)

    def _push_interim(self, epochs: int) -> None:
        """Push the best student of the first ``epochs``, if that is due; the last epoch's goes with the report."""
        interval, num_epochs = self.recipe.hub_interval, self.training.schedule.num_epochs
        if self.best and interval and epochs % interval == 0 and epochs < num_epochs:
            with logged_failure("no interim push", self.folder):
                push_interim(self.recipe, self.training, self.folder, self.best, self.publisher)

    def _save(self, progress: Progress, complete: bool) -> None:
        skipped = self._skipped_images()
        saved = SavedProgress(
            epoch=progress.epoch,
            complete=complete,
            updates=progress.updates,
            batches=progress.batches,
            world=self.accelerator.num_processes,
            meter=progress.meter,
            best=self.best,
            scheduler=self.training.schedule.state(),
            seconds=self._seconds(),
            images=self.images,
            views=self.views,
            skipped_updates=progress.skipped_updates,
            settings=plain_settings(self.recipe),
            changes=self.resumed.history,
            skipped_images=sum(skipped.values()),
            skipped_first=list(skipped)[:NAMED],
            class_names=self.splits.train.names or [],
        )
        loader = self.training.loader
        rank = SavedRank(position=loader.state(), meter=progress.meter, skipped=loader.skips.images)
        save_state(self.folder, self.training.task, self.accelerator, saved, rank, self.recipe.checkpoint_hist)
