"""The base of tasks whose loss is a sum of terms: a student with taps beside a frozen teacher, one forward of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, TypedDict, Unpack

import torch
from jaxtyping import Float
from timm.data import resolve_input_data_config
from timm.task import resolve_classification_loss
from torch import Tensor, nn

from dccd_timm.batch import check_view_major, fold_views
from dccd_timm.losses import dist, dkd, kd, ls, wttm
from dccd_timm.losses.contrast import check_choice
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.taps import check_classifier, check_tappable, probe, single_head
from dccd_timm.models.teacher import check_classes, load_teacher
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe.distil import Distil
from dccd_timm.recipe.methods import LOGIT_LOSSES
from dccd_timm.task.answered import AnsweredTeacher
from dccd_timm.task.contract import TappedTask
from dccd_timm.task.trainable import TappedStudent

# The functions of recipe.methods.LOGIT_LOSSES.
LOSSES: dict[str, Callable[..., Tensor]] = {"kl": kd, "ls": ls, "dkd": dkd, "dist": dist, "wttm": wttm}


class Answers(NamedTuple):
    """What a step's loss is computed from: logits and maps of both networks on N view-major images, and targets.

    A teacher without a head has logits [N, 0].
    """

    target: Tensor  # [N] classes or [N, K] shares
    student: Float[Tensor, "N K"]
    teacher: Float[Tensor, "N K_t"]
    student_maps: list[Tensor]
    teacher_maps: list[Float[Tensor, "N C H W"]]


class Term(NamedTuple):
    """One part of the loss: its name in the task's output, its weight, how it is computed, whether it warms up, and
    whether it reads the teacher's logits, so that it is off with a teacher that has none."""

    name: str
    weight: Callable[..., float]
    compute: Callable[..., Tensor]
    warms_up: bool = False
    reads_logits: bool = False


class Inputs(NamedTuple):
    """The student's images, as far as its own configuration does not say, and the precision of the teacher.

    Args:
        size: [C, H, W].
        mean, std: normalisation, one value or one per channel.
        teacher_dtype: precision of the teacher, whatever the student's; None computes as autocast says.
        teacher_img_size: side of the images that the teacher sees: ``own`` (its configuration's), ``student`` or N.
    """

    size: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    teacher_dtype: torch.dtype | None = None
    teacher_img_size: str | int = Distil.kd_teacher_img_size


class Distillation(NamedTuple):
    """The loss between logits and the two weights that timm knows; None takes the value of the loss's paper.

    Args:
        loss_type: a name of :data:`dccd_timm.recipe.methods.LOGIT_LOSSES`.
        loss_kwargs: parameters of the loss beside its temperature.
        temperature: of its softmax.
        distill_loss_weight, task_loss_weight: timm's names and, for ``kl``, its rule: a task weight alone means 1 - w.
        warmup_epochs: epochs in which the weight of the distillation loss rises from 0.
    """

    loss_type: str = "kl"
    loss_kwargs: Mapping[str, float] | None = None
    temperature: float | None = None
    distill_loss_weight: float | None = None
    task_loss_weight: float | None = None
    warmup_epochs: float = 0.0


class ModuleOptions(TypedDict, total=False):
    """What every timm task takes."""

    device: torch.device | None
    dtype: torch.dtype | None
    verbose: bool


class TermTask(TappedTask):
    """A timm TrainingTask whose loss is the weighted sum of :attr:`TERMS`; subclasses tap stages and add terms.

    By itself it has a task loss and a loss between logits; with ``kl`` it equals timm's LogitDistillationTask.

    Args:
        student_model: timm model to train; two-headed distilled models answer with the mean of their heads.
        teacher_model: timm name, ``hf-hub:``/``local-dir:`` name or module; frozen here, for good. A teacher
            with BatchNorm is copied with its norms folded into the convolutions. With one that has no head
            (``num_classes`` 0) the terms that read its logits are off.
        criterion: classification loss; created from ``criterion_kwargs`` by timm when None.
        criterion_kwargs: arguments of timm's ``create_classification_loss``.
        distillation: the loss between logits, and weights.
        inputs: what the networks are shown.
        options: device, dtype and verbose, as of any timm task.

    Raises:
        ValueError: when the pair cannot work; one line.
    """

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: str | nn.Module,
        criterion: nn.Module | None = None,
        criterion_kwargs: dict[str, object] | None = None,
        distillation: Distillation | None = None,
        inputs: Inputs | None = None,
        **options: Unpack[ModuleOptions],
    ) -> None:
        super().__init__(**options)
        inputs = inputs or Inputs()
        check_tappable(student_model, "student")
        if not (self.learns_unlabelled and distillation is not None and distillation.task_loss_weight == 0):
            check_classifier(student_model, "student")
        single_head(student_model)
        student_model.to(device=self.device, dtype=self.dtype)
        num_classes = as_timm(student_model).num_classes
        if isinstance(teacher_model, str):
            teacher_model = load_teacher(teacher_model, num_classes=num_classes, any_classes=True)
        if as_timm(teacher_model).num_classes and num_classes:
            check_classes(teacher_model, num_classes)
        config = resolve_input_data_config(student_model)
        self.input_size = tuple(inputs.size or config["input_size"])
        mean, std = inputs.mean or config["mean"], inputs.std or config["std"]
        dtype, img_size = inputs.teacher_dtype or self.dtype, inputs.teacher_img_size
        if not isinstance(teacher_model, FrozenTeacher):
            teacher_model = FrozenTeacher(
                teacher_model, mean, std, self.input_size, dtype, fold=True, img_size=img_size
            )
        self.teacher = teacher_model.to(self.device)
        self.views: int | None = None  # of each image in a batch, where a term depends on it
        self._checked = False
        self.teacher_stages: list[int] = []
        self.grids: list[tuple[int, int] | None] = []
        self.trainable_module = TappedStudent(student_model)
        self.criterion = resolve_classification_loss(criterion, self.device, criterion_kwargs=criterion_kwargs)
        self._set_distillation(distillation or Distillation())
        if not self.has_logits and all(term.reads_logits for term in self.TERMS[1:]):
            raise ValueError(f"teacher {self.teacher_name} has no head: its features alone are no loss between logits")

    #: Whether a student without a head can be trained, on images without labels and with no weight on a task loss.
    learns_unlabelled: ClassVar[bool] = False

    @property
    def has_logits(self) -> bool:
        """Whether both networks give logits for the same classes, and not their features alone."""
        return self.classifies and self.teacher.num_classes > 0

    @property
    def classifies(self) -> bool:
        """Whether the student has a head."""
        return as_timm(self._trainable().student).num_classes > 0

    @property
    def teacher_name(self) -> str:
        """The teacher's network, for errors."""
        return type(self.teacher.model).__name__

    def _set_distillation(self, distillation: Distillation) -> None:
        check_choice("loss_type", distillation.loss_type, tuple(LOSSES))
        paper = LOGIT_LOSSES[distillation.loss_type]
        self.loss_type, self.loss_kwargs = distillation.loss_type, dict(distillation.loss_kwargs or {})
        if paper.temperature is not None:
            self.loss_kwargs["temperature"] = distillation.temperature or paper.temperature
        task, distill = distillation.task_loss_weight, distillation.distill_loss_weight
        if distill is None:  # timm's rule, unless the loss has a scale of its own
            distill = 1.0 - task if task is not None and self.loss_type == "kl" else paper.weight
        self.task_loss_weight = paper.task_weight if task is None else task
        self.distill_loss_weight = distill
        self.warmup_epochs, self.epochs_done = distillation.warmup_epochs, 0.0

    def stage_shapes(self) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
        """Channels, height and width of the maps of every stage, of the student and of the teacher."""
        student = self._trainable().student
        own = probe(student, self.input_size, "student")
        if isinstance(self.teacher, AnsweredTeacher):
            return own, self.teacher.stage_shapes(self.input_size)
        return own, probe(self.teacher.model, self.teacher.input_size(self.input_size), "teacher")

    def tap(
        self,
        stages: Sequence[int],
        teacher_stages: Sequence[int],
        grids: Sequence[tuple[int, int] | None],
        maps: Sequence[nn.Module],
        embedding: nn.Module | None = None,
    ) -> None:
        """Read these stages of both networks in each step; arguments as of :class:`TappedStudent`."""
        student = self._trainable().student
        self.teacher_stages, self.grids = list(teacher_stages), list(grids)
        self.teacher.embeds = embedding is not None
        tapped = TappedStudent(student, stages, grids, maps, embedding)
        self.trainable_module = tapped.to(device=self.device, dtype=self.dtype)

    def _task_loss(self, answers: Answers) -> Tensor:
        loss: Tensor = self.criterion(answers.student, answers.target)
        return loss

    def _kd_loss(self, answers: Answers) -> Tensor:
        return LOSSES[self.loss_type](answers.student, answers.teacher, answers.target, **self.loss_kwargs)

    #: The parts of the loss, in the order of their sum; one of weight 0 is left out.
    TERMS: ClassVar[tuple[Term, ...]] = (
        Term("task_loss", lambda task: task.task_loss_weight, _task_loss),
        Term("kd_loss", lambda task: task.distill_loss_weight, _kd_loss, warms_up=True, reads_logits=True),
    )

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of each part of the loss after the warm-up, by its name in what :meth:`forward` returns."""
        weights = {term.name: term.weight(self) for term in self.TERMS if self.has_logits or not term.reads_logits}
        if not self.classifies:
            del weights["task_loss"]
        return {name: weight for name, weight in weights.items() if weight or name == "task_loss"}

    def set_progress(self, epochs: float) -> None:
        """Tell how many epochs are done, in fractions too: the distillation warms up by it."""
        self.epochs_done = epochs

    def teacher_answers(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's logits and maps of the student's images, and after these its pooled features if wanted."""
        logits, maps = self.teacher(images, self.teacher_stages)
        return logits, [*maps, logits[:, :, None, None]] if self.teacher.embeds else maps

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """One step's losses.

        ``input`` is [B, V, C, H, W], or V tensors [B, C, H, W], with ``target`` [B] or [B, K]; or it is view-major,
        [V * B, C, H, W] with [V * B, ...]. Returns ``loss``, ``output`` (student logits [V * B, K], view-major) and the
        unweighted, detached parts by the names of :attr:`TERMS`; a part whose weight is 0 is left out.

        Raises:
            ValueError: for a batch of other shapes or another number of views, or a first view-major one whose parts
                are no views of the same images.
        """
        is_folded = isinstance(input, Tensor) and input.ndim == 4
        input, target = fold_views(input, target, self.views)
        if is_folded and self.views is not None and not self._checked:  # once: it waits for the device
            check_view_major(target, self.views)
            self._checked = True
        logits, maps = self.trainable_module(input)
        teacher_logits, teacher_maps = self.teacher_answers(input)
        # a criterion in half precision would lose the tail of the softmax
        answers = Answers(target, logits.float(), teacher_logits, maps, teacher_maps)
        weights, warmth = self.term_weights, 1.0
        if self.epochs_done < self.warmup_epochs:
            warmth = self.epochs_done / self.warmup_epochs
        terms = [term for term in self.TERMS if term.name in weights]
        parts = {term.name: term.compute(self, answers) for term in terms}
        weighted = [weights[t.name] * (warmth if t.warms_up else 1.0) * parts[t.name] for t in terms]
        loss = sum(weighted[1:], start=weighted[0])
        return {"loss": loss, "output": answers.student, **{name: value.detach() for name, value in parts.items()}}
