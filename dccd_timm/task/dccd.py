"""DCCDTask: task loss, KD, channel contrast and dynamic difference of a timm pair, from one forward of each.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from timm.data import resolve_input_data_config
from timm.task import resolve_classification_loss
from torch import Tensor, nn

from dccd_timm.batch import fold_views
from dccd_timm.losses import ChannelContrastiveLoss, DynamicDifferenceLoss, kd
from dccd_timm.losses.contrast import Direction, Negatives, Scope, Targets, check_choice, common_grid
from dccd_timm.losses.difference import Form
from dccd_timm.models.taps import check_tappable, choose_stages, probe, single_head
from dccd_timm.models.teacher import FrozenTeacher, check_classes, load_teacher
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe.distil import Distil
from dccd_timm.task.contract import TappedTask
from dccd_timm.task.trainable import TappedStudent

Where = Literal["spatial", "pooled"]


class Answers(NamedTuple):
    """What a step's loss is computed from: logits and maps of both networks on N view-major images, and targets."""

    target: Tensor  # [N] classes or [N, K] shares
    student: Float[Tensor, "N K"]
    teacher: Float[Tensor, "N K"]
    student_maps: list[Float[Tensor, "N C h w"]]
    teacher_maps: list[Float[Tensor, "N C H W"]]


class Term(NamedTuple):
    """One part of the loss: its name in the task's output, its weight, and how it is computed."""

    name: str
    weight: "Callable[[DCCDTask], float]"
    compute: "Callable[[DCCDTask, Answers], Tensor]"


class DCCDTask(TappedTask):
    """Difference-based channel contrastive distillation as a timm TrainingTask.

    loss = w_task * criterion + w_kd * KD + w_contrast * contrast + w_difference * difference, where w_task and w_kd
    follow timm's rule: a task weight alone means 1 - w for KD. With both DCCD weights at 0 and one view it equals
    timm's LogitDistillationTask. Only ``trainable_module`` (student and channel maps) is prepared, optimised,
    averaged and saved.

    Args:
        student_model: timm model to train; two-headed distilled models answer with the mean of their heads.
        teacher_model: timm name, ``hf-hub:``/``local-dir:`` name or module; frozen here, for good. A teacher
            with BatchNorm is copied with its norms folded into the convolutions.
        criterion: classification loss; created from ``criterion_kwargs`` by timm when None.
        views: V, the views of each image in a batch.
        distill_loss_weight, task_loss_weight, temperature: timm's names for KD.
        contrast_stages: stages counted from the end; None takes the deepest with at least 16 positions.
        contrast_where: ``spatial`` (all positions) or ``pooled`` (global average).
        contrast_targets, contrast_negatives, contrast_direction, contrast_scope: as in
            :class:`dccd_timm.ChannelContrastiveLoss`.
        difference_views: the two views whose difference is compared.
        input_size, input_mean, input_std: images [C, H, W] and their normalisation; default: the student's own.
        teacher_img_size: side of the images that the teacher sees: ``own`` (its configuration's), ``student`` or N;
            the student's images are resized for it.
        teacher_dtype: precision of the teacher, whatever the student's; None computes as autocast says.

    Raises:
        ValueError: when the pair cannot work: class counts, feature maps, channels, views; one line each.
    """

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: str | nn.Module,
        criterion: nn.Module | None = None,
        criterion_kwargs: dict[str, object] | None = None,
        views: int = 2,
        distill_loss_weight: float | None = None,
        task_loss_weight: float | None = None,
        temperature: float = Distil.kd_temperature,
        contrast_loss_weight: float = Distil.dccd_contrast_weight,
        contrast_temperature: float = Distil.dccd_contrast_temperature,
        contrast_where: Where = Distil.dccd_contrast_where,
        contrast_stages: Sequence[int] | None = None,
        contrast_direction: Direction = Distil.dccd_contrast_direction,
        contrast_targets: Targets = Distil.dccd_contrast_targets,
        contrast_negatives: Negatives = Distil.dccd_contrast_negatives,
        contrast_scope: Scope = Distil.dccd_contrast_scope,
        difference_loss_weight: float = Distil.dccd_difference_weight,
        difference_temperature: float = Distil.dccd_difference_temperature,
        difference_form: Form = Distil.dccd_difference_loss,
        difference_views: Sequence[int] = (0, 1),
        input_size: Sequence[int] | None = None,
        input_mean: Sequence[float] | None = None,
        input_std: Sequence[float] | None = None,
        teacher_img_size: str | int = Distil.kd_teacher_img_size,
        teacher_dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        if views < 1 or (difference_loss_weight and views < 2):
            raise ValueError(
                f"a difference needs 2 views of an image, got views={views}: set the weight to 0 or views=2"
            )
        check_choice("contrast_where", contrast_where, get_args(Where))
        check_tappable(student_model, "student")
        single_head(student_model)
        student_model.to(device=self.device, dtype=self.dtype)
        num_classes = as_timm(student_model).num_classes
        if isinstance(teacher_model, str):
            teacher_model = load_teacher(teacher_model, num_classes=num_classes)
        check_classes(teacher_model, num_classes)
        config = resolve_input_data_config(student_model)
        size = tuple(input_size or config["input_size"])
        mean, std = input_mean or config["mean"], input_std or config["std"]
        self.teacher = FrozenTeacher(
            teacher_model, mean, std, size, teacher_dtype or self.dtype, fold=True, img_size=teacher_img_size
        )
        self.teacher.to(self.device)

        self.views, self.temperature = views, temperature
        # timm's rule for its two weights
        self.task_loss_weight = 1.0 if task_loss_weight is None else task_loss_weight
        if distill_loss_weight is None:
            distill_loss_weight = 1.0 if task_loss_weight is None else 1.0 - task_loss_weight
        self.distill_loss_weight = distill_loss_weight
        self.contrast_loss_weight, self.difference_loss_weight = contrast_loss_weight, difference_loss_weight
        self.criterion = resolve_classification_loss(criterion, self.device, criterion_kwargs=criterion_kwargs)
        self.contrast = ChannelContrastiveLoss(
            contrast_temperature, contrast_targets, contrast_direction, contrast_scope, contrast_negatives
        )
        self.difference = (
            DynamicDifferenceLoss(difference_temperature, views, difference_form, difference_views)
            if difference_loss_weight
            else None
        )
        self.teacher_stages: list[int] = []
        self.trainable_module = self._tap(student_model, size, contrast_where, contrast_stages)

    def _tap(
        self, student: nn.Module, size: tuple[int, ...], where: Where, wanted: Sequence[int] | None
    ) -> TappedStudent:
        """Choose the stages of both networks and build the maps between their channels."""
        if self.contrast_loss_weight == 0:
            return TappedStudent(student, [], [], [])
        pooled = where == "pooled"
        shapes = probe(student, size, "student"), probe(self.teacher.model, self.teacher.input_size(size), "teacher")
        stages = [
            choose_stages(s, wanted, role, pooled) for s, role in zip(shapes, ("student", "teacher"), strict=True)
        ]
        self.teacher_stages = stages[1]
        pairs = [(shapes[0][s], shapes[1][t]) for s, t in zip(*stages, strict=True)]
        grids = [(1, 1) if pooled else common_grid(s[1:], t[1:]) for s, t in pairs]
        widths = [(s[0], t[0]) for s, t in pairs]
        return TappedStudent(student, stages[0], grids, widths).to(device=self.device, dtype=self.dtype)

    def _task_loss(self, answers: Answers) -> Tensor:
        loss: Tensor = self.criterion(answers.student, answers.target)
        return loss

    def _kd_loss(self, answers: Answers) -> Tensor:
        return kd(answers.student, answers.teacher, temperature=self.temperature)

    def _contrast_loss(self, answers: Answers) -> Tensor:
        pairs = zip(answers.student_maps, answers.teacher_maps, strict=True)
        return torch.stack([self.contrast(student, teacher) for student, teacher in pairs]).mean()

    def _difference_loss(self, answers: Answers) -> Tensor:
        assert self.difference is not None
        loss: Tensor = self.difference(answers.student, answers.teacher)
        return loss

    #: The parts of the loss, in the order of their sum; one of weight 0 is left out.
    TERMS: ClassVar[tuple[Term, ...]] = (
        Term("task_loss", lambda task: task.task_loss_weight, _task_loss),
        Term("kd_loss", lambda task: task.distill_loss_weight, _kd_loss),
        Term("contrast_loss", lambda task: task.contrast_loss_weight, _contrast_loss),
        Term("difference_loss", lambda task: task.difference_loss_weight, _difference_loss),
    )

    @property
    def term_weights(self) -> dict[str, float]:
        """The weight of each part of the loss, by its name in what :meth:`forward` returns."""
        weights = {term.name: term.weight(self) for term in self.TERMS}
        return {name: weight for name, weight in weights.items() if weight or name == "task_loss"}

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """One step's losses.

        ``input`` is [B, V, C, H, W] with ``target`` [B] or [B, K], or view-major [V * B, C, H, W] with [V * B, ...].
        Returns ``loss``, ``output`` (student logits [V * B, K], view-major) and the unweighted, detached parts
        ``task_loss``, ``kd_loss``, ``contrast_loss``, ``difference_loss``; a part whose weight is 0 is left out.
        """
        input, target = fold_views(input, target)
        logits, maps = self.trainable_module(input)
        teacher_logits, teacher_maps = self.teacher(input, self.teacher_stages)
        # a criterion in half precision would lose the tail of the softmax
        answers = Answers(target, logits.float(), teacher_logits, maps, teacher_maps)
        weights = self.term_weights
        parts = {term.name: term.compute(self, answers) for term in self.TERMS if term.name in weights}
        weighted = [weights[name] * value for name, value in parts.items()]
        loss = sum(weighted[1:], start=weighted[0])
        return {"loss": loss, "output": answers.student, **{name: value.detach() for name, value in parts.items()}}
