"""--kd-cache: what the answers of a run belong to, whether its teacher must be loaded, and who writes."""

import dataclasses
import fcntl
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from timm.task import TrainingTask
from torch import nn

from dccd_timm.cache.draws import count_draws, skip_draws
from dccd_timm.cache.identity import Belongings, Identity, TeacherFacts
from dccd_timm.cache.store import AnswerStore
from dccd_timm.data.build import batches_per_epoch
from dccd_timm.data.sources import Source
from dccd_timm.engine.evaluate import kept_random_states
from dccd_timm.engine.optim import num_epochs
from dccd_timm.errors import UserError
from dccd_timm.models.cost import gmacs
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.weights import hash_weights
from dccd_timm.plan.report import readable_size
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.recipe.methods import METHODS
from dccd_timm.report.schema import NetworkReport
from dccd_timm.run.cache_identity import answer_form, belongings, hash_files, teacher_options
from dccd_timm.run.folder import existing_parent, write_settings
from dccd_timm.task.answered import AnsweredTeacher
from dccd_timm.task.build import replace_teacher, teacher_of
from dccd_timm.task.terms import TermTask

_logger = logging.getLogger(__name__)

_LOCK_FILE = ".lock"
# Part of an epoch's images with answers from which a teacher is not loaded before it is needed: the images that are
# left over at the end of an epoch are others in each.
_ENOUGH = 0.99


@dataclass
class AnswerCache:
    """The folder of a run's answers, its teacher, and the ``belongs`` that is known before a teacher is loaded."""

    folder: Path
    recipe: Recipe
    store: AnswerStore
    identity: Identity | None
    belongs: Belongings
    needed: dict[int, int]  # images that an epoch needs, by the epoch of its views
    images: int
    accelerator: Accelerator
    data_config: DataConfig
    teacher: AnsweredTeacher | None = None
    draws: int | None = None
    lock: IO[str] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether next to all answers of the run are there."""
        counts = self.store.counts()
        return all(counts[epoch] >= _ENOUGH * images for epoch, images in self.needed.items())

    @property
    def weights(self) -> str:
        """The hash of the weights of the teacher that answered, empty in a new folder."""
        return str(self.identity.belongs["teacher"]["weights"]) if self.identity else ""

    def find_teacher(self, load: Callable[[], nn.Module | None], dtype: torch.dtype | None) -> nn.Module | None:
        """The teacher, by ``load``; one whose answers are all kept is loaded only if one of them is missing."""
        if answered := self._without_teacher(load, dtype):
            return answered
        before = torch.get_rng_state()
        teacher = load()
        if self.identity is None:
            self.draws = count_draws(before, torch.get_rng_state())
        return teacher

    def _without_teacher(
        self, load: Callable[[], nn.Module | None], dtype: torch.dtype | None
    ) -> AnsweredTeacher | None:
        """A teacher that is not loaded; None where it must be: to answer, to be compared with the one that answered, or
        because all ranks find its probe together."""
        known, recipe = self.identity, self.recipe
        if known is None or known.teacher.draws is None or recipe.kd_teacher_probe or not self.is_complete:
            return None
        files = hash_files(recipe)
        if teacher_options(recipe) != known.teacher.options or (files and files != known.teacher.files):
            return None
        skip_draws(known.teacher.draws)
        mean, std = self.data_config["mean"], self.data_config["std"]
        late = partial(self._load_late, load, dtype)
        self.teacher = AnsweredTeacher(known.teacher, self.store, late, mean, std, dtype)
        return self.teacher

    def _load_late(self, load: Callable[[], nn.Module | None], dtype: torch.dtype | None) -> FrozenTeacher:
        """The teacher that was not loaded at first.

        Raises:
            UserError: when it is not the one that answered.
        """
        _logger.info("the teacher is loaded: it is asked for answers that %s does not have", self.folder)
        assert self.identity is not None
        config, recipe, device = self.data_config, self.recipe, self.accelerator.device
        with kept_random_states(device):
            model = load()
        assert model is not None
        self.identity.check({"teacher": self.belongs["teacher"] | {"weights": hash_weights(model)}}, self.folder)
        teacher = FrozenTeacher(
            model, config["mean"], config["std"], config["input_size"], dtype, bool(self.belongs["teacher"]["folded"]),
            recipe.kd_teacher_img_size,
        ).to(device)  # fmt: skip
        return teacher.to(memory_format=torch.channels_last) if recipe.channels_last else teacher

    def attach(self, task: TrainingTask, weights: str) -> None:
        """Let the teacher of ``task`` read and keep its answers; ``weights`` are the hash of a loaded one's.

        Raises:
            UserError: for answers of another teacher, or in another form.
        """
        frozen = teacher_of(task)
        assert frozen is not None
        size = self.data_config["input_size"]
        if self.teacher is None:
            facts = self._facts(task, frozen)
            mean, std = self.data_config["mean"], self.data_config["std"]
            self.teacher = AnsweredTeacher(facts, self.store, frozen, mean, std, frozen.dtype)
            replace_teacher(task, self.teacher)
        form = answer_form(self.recipe, task, self.teacher)
        self.belongs["teacher"] |= {
            "weights": weights,
            "input": list(self.teacher.input_size(size)),
            "sees": self.teacher.conversions(size),
            "folded": isinstance(task, TermTask),
        }
        self.belongs["answers"] = dataclasses.asdict(form)
        if self.identity is not None:
            self.identity.check(self.belongs, self.folder)
        self.teacher.form = form

    def _facts(self, task: TrainingTask, frozen: FrozenTeacher) -> TeacherFacts:
        size, recipe = self.data_config["input_size"], self.recipe
        return TeacherFacts(
            options=teacher_options(recipe),
            files=hash_files(recipe),
            num_classes=frozen.num_classes,
            num_parameters=frozen.num_parameters,
            has_features=frozen.has_features,
            input_size=frozen.input_size(size),
            sees=frozen.conversions(size),
            stages=task.stage_shapes()[1] if isinstance(task, TermTask) and task.teacher_stages else [],
            gmacs=gmacs(frozen.model, frozen.input_size(size)),
            draws=self.draws,
        )

    def begin(self, network: NetworkReport | None) -> None:
        """Make the folder and decide who writes: one run at a time; the same on all ranks. ``network`` is the report's
        description of the teacher.

        Raises:
            UserError: when the disk refuses, or another run has just begun with other answers.
        """
        assert self.teacher is not None
        self.teacher.facts.network = self.teacher.facts.network or (network.to_json() if network else {})
        if self.accelerator.is_main_process:
            self.lock = self._lock()
            if self.lock is not None:
                self._write_identity()
        self.store.writes = bool(broadcast_object_list([self.lock is not None])[0])
        if self.store.writes and self.accelerator.is_local_main_process:  # a machine may have a folder of its own
            self._write_identity()

    def _lock(self) -> IO[str] | None:
        """The lock of the one run that writes; None for a run that only reads.

        Raises:
            UserError: when the disk refuses, and there is nothing to read.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (lock := lock_folder(self.folder)) is not None:
                for rest in self.folder.glob(".*.new"):  # of a run that was killed
                    rest.unlink()
                return lock
            reason = "another run writes answers into it"
        except OSError as error:
            if self.identity is None:
                raise UserError(f"--kd-cache {self.folder} cannot be written: {error.strerror}") from error
            reason = error.strerror or "it cannot be written"
        if not self.is_complete:
            _logger.warning("--kd-cache %s: %s, so this one reads what is there and writes none", self.folder, reason)
        return None

    def _write_identity(self) -> None:
        """Say whose answers a new folder holds, or check it where another run has begun meanwhile."""
        assert self.teacher is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (identity := Identity.read(self.folder)) is not None:
                identity.check(self.belongs, self.folder)
                return
            write_settings(self.folder, self.recipe)
            Identity(belongs=self.belongs, teacher=self.teacher.facts, images=self.images).write(self.folder)
        except OSError as error:
            raise UserError(f"--kd-cache {self.folder} cannot be written: {error.strerror}") from error

    def end_epoch(self) -> None:
        """Write the answers of this rank, and find those of the others."""
        self.store.flush()
        self.accelerator.wait_for_everyone()
        self.store.refresh()

    def close(self) -> None:
        """Let another run write."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None

    def describe(self, student_gmacs: float | None) -> str:
        """What the start block says: answers that are there, bytes on the disk, and what a step saves."""
        assert self.teacher is not None and self.teacher.form is not None
        there, wanted = sum(self.store.counts().values()), sum(self.needed.values())
        size, left = self.store.num_bytes, shutil.disk_usage(existing_parent(self.folder)).free
        full = max(size, wanted * self.teacher.form.image_bytes)
        parts = [
            f"{self.folder}: views of {there} of {wanted} images are answered",
            f"{readable_size(size)} of {readable_size(full)}",
            f"{readable_size(left)} left on the disk",
        ]
        teacher = self.teacher.facts.gmacs
        if teacher and student_gmacs:
            share = 100 * teacher / (teacher + 3 * student_gmacs)
            parts.append(f"a step without the teacher saves {share:.0f} % of its operations")
        return ", ".join(parts)


def open_cache(recipe: Recipe, source: Source, data_config: DataConfig, accelerator: Accelerator) -> AnswerCache | None:
    """The answers that a run reads and writes; None without --kd-cache, or without a teacher.

    Raises:
        UserError: when the folder's answers belong to other views, images or settings.
    """
    if not recipe.kd_cache or not METHODS[recipe.kd_distill_type].distills:
        return None
    folder = Path(recipe.kd_cache)
    batches = batches_per_epoch(recipe, source, accelerator.num_processes)
    images = min(source.num_samples, batches * recipe.batch_size * accelerator.num_processes)
    period = recipe.dccd_view_period or num_epochs(recipe)
    needed = dict.fromkeys(range(min(period, num_epochs(recipe))), images)
    identity = Identity.read(folder)
    belongs = belongings(recipe, source, data_config, accelerator)
    if identity is not None:
        early = {subject: values for subject, values in belongs.items() if subject != "teacher"}
        identity.check(early, folder)  # before a teacher is loaded
    store = AnswerStore(folder)
    if identity is None and store.shards:
        raise UserError(f"--kd-cache {folder} has answers and no answers.json that says of whom: give another folder")
    return AnswerCache(folder, recipe, store, identity, belongs, needed, source.num_samples, accelerator, data_config)


def lock_folder(folder: Path) -> IO[str] | None:
    """The lock of the one run that writes; None when another one has it."""
    file = (folder / _LOCK_FILE).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
