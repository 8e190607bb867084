"""FeatureTask: the feature methods of the field in the same loop, each at its paper's weight."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from dccd_timm.losses import at, fitnet, ofa, rkd, sp, wkd
from dccd_timm.losses.contrast import check_choice, common_grid
from dccd_timm.models.taps import MIN_POSITIONS, choose_stages
from dccd_timm.recipe.methods import METHODS
from dccd_timm.task.terms import Answers, Distillation, Inputs, ModuleOptions, Term, TermTask

Shape = tuple[int, int, int]


class _Projection(NamedTuple):
    """How a method compares maps: its loss, and what stands between a student's map and that loss.

    Args:
        loss: between matching maps, or for a branch between its logits and the teacher's.
        build: projector from the shapes [C, H, W] of the student's and the teacher's map, and the number of classes.
        every: whether all large enough stages are compared where none are named, or the deepest alone.
        branch: whether the projector answers with logits, so that the teacher's maps are not read.
    """

    loss: Callable[..., Tensor]
    build: Callable[[Shape, Shape, int], nn.Module] = lambda student, teacher, classes: nn.Identity()
    every: bool = False
    branch: bool = False


def _regressor(student: Shape, teacher: Shape, classes: int) -> nn.Module:
    """1x1 convolution, norm and ReLU to the teacher's channels, as FitNet has it in CRD's benchmark."""
    return nn.Sequential(nn.Conv2d(student[0], teacher[0], 1), nn.BatchNorm2d(teacher[0]), nn.ReLU())


def _bottleneck(student: Shape, teacher: Shape, classes: int, width: int = 256) -> nn.Module:
    """The projector of WKD-F: 1x1, 3x3 and 1x1 convolutions through 256 channels, norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(student[0], width, 1),
        nn.Conv2d(width, width, 3, padding=1),
        nn.Conv2d(width, teacher[0], 1),
        nn.BatchNorm2d(teacher[0]),
        nn.ReLU(),
    )


def _branch(student: Shape, teacher: Shape, classes: int) -> nn.Module:
    """An exit of OFA-KD: a map's channels to logits."""
    width = max(student[0], 128)
    return nn.Sequential(
        nn.Conv2d(student[0], width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


_PROJECTIONS = {
    "fitnet": _Projection(fitnet, _regressor),
    "at": _Projection(at, every=True),
    "sp": _Projection(sp),
    "rkd": _Projection(rkd),
    "wkd": _Projection(wkd, _bottleneck),
    "ofa": _Projection(ofa, _branch, every=True, branch=True),
}


class FeatureTask(TermTask):
    """Task loss and one feature method between the maps of a timm pair, as a timm TrainingTask.

    loss = w_task * criterion + w * sum of the method's loss over the tapped stages, where w is that of the method's
    paper unless ``distillation`` names one. Projectors train along with the student and are thrown away.

    Args:
        student_model, teacher_model, criterion, criterion_kwargs, inputs, options: as of :class:`TermTask`.
        method: ``fitnet``, ``at``, ``sp``, ``rkd``, ``wkd`` or ``ofa``; their losses are in :mod:`dccd_timm.losses`.
        stages: stages counted from the end; None takes the deepest with at least 16 positions, and for ``at`` and
            ``ofa`` all of them.
        distillation: weights and warm-up; ``loss_kwargs`` are those of the method's loss.

    Raises:
        ValueError: for an unknown method, or a pair that cannot work; one line.
    """

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: str | nn.Module,
        method: str,
        criterion: nn.Module | None = None,
        stages: Sequence[int] | None = None,
        distillation: Distillation | None = None,
        inputs: Inputs | None = None,
        **options: Unpack[ModuleOptions],
    ) -> None:
        check_choice("method", method, tuple(_PROJECTIONS))
        given = distillation or Distillation()
        weight = METHODS[method].weight if given.distill_loss_weight is None else given.distill_loss_weight
        task_weight = 1.0 if given.task_loss_weight is None else given.task_loss_weight
        own = Distillation(distill_loss_weight=weight, task_loss_weight=task_weight, warmup_epochs=given.warmup_epochs)
        super().__init__(student_model, teacher_model, criterion, None, own, inputs, **options)
        if not self.has_logits and "logits" in METHODS[method].needs:
            raise ValueError(f"teacher {self.teacher_name} has no head, and {method} reads its logits")
        self.method, self.feature_kwargs = _PROJECTIONS[method], dict(given.loss_kwargs or {})
        self._tap_stages(stages)

    def _tap_stages(self, wanted: Sequence[int] | None) -> None:
        """Choose the stages of both networks, the deepest with the deepest, and build the projectors."""
        own, others = self.stage_shapes()
        if self.method.branch:  # the teacher's maps are not read: any will do
            others = own
        student, teacher = self._choose(own, wanted, "student"), self._choose(others, wanted, "teacher")
        # networks of different depths: counted from the end
        count = min(len(student), len(teacher))
        student, teacher = student[len(student) - count :], teacher[len(teacher) - count :]
        pairs = [(own[s], others[t]) for s, t in zip(student, teacher, strict=True)]
        self.tap(
            student,
            [] if self.method.branch else teacher,
            [common_grid(s[1:], t[1:]) for s, t in pairs],
            [self.method.build(s, t, self.teacher.num_classes) for s, t in pairs],
        )

    def _choose(self, shapes: Sequence[Shape], wanted: Sequence[int] | None, role: str) -> list[int]:
        stages = choose_stages(shapes, wanted, role)
        every = self.method.every and wanted is None
        return [k for k, (_, h, w) in enumerate(shapes) if h * w >= MIN_POSITIONS] if every else stages

    def _feature_loss(self, answers: Answers) -> Tensor:
        losses = []
        if self.method.branch:
            for logits in (answers.student, *answers.student_maps):
                losses.append(self.method.loss(logits, answers.teacher, answers.target, **self.feature_kwargs))
        else:
            for student, teacher in zip(answers.student_maps, answers.teacher_maps, strict=True):
                losses.append(self.method.loss(student, teacher, **self.feature_kwargs))
        return torch.stack(losses).sum()

    TERMS: ClassVar[tuple[Term, ...]] = (
        TermTask.TERMS[0],
        Term("feature_loss", lambda task: task.distill_loss_weight, _feature_loss, warms_up=True),
    )
