"""DCCDTask: task loss, KD, channel contrast and dynamic difference of a timm pair, from one forward of each.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from dccd_timm.losses import ChannelContrastiveLoss, DynamicDifferenceLoss
from dccd_timm.losses.contrast import Direction, Negatives, Scope, Targets, check_choice, common_grid
from dccd_timm.losses.difference import Form
from dccd_timm.models.taps import choose_stages
from dccd_timm.recipe.distil import Distil
from dccd_timm.task.terms import Answers, Distillation, Inputs, Term, TermTask
from dccd_timm.task.trainable import channel_map

Where = Literal["spatial", "pooled"]


class DCCDTask(TermTask):
    """Difference-based channel contrastive distillation as a timm TrainingTask.

    loss = w_task * criterion + w_kd * KD + w_contrast * contrast + w_difference * difference, where w_task and w_kd
    follow timm's rule: a task weight alone means 1 - w for KD. With both DCCD weights at 0 and one view it equals
    timm's LogitDistillationTask. Only ``trainable_module`` (student and channel maps) is prepared, optimised,
    averaged and saved.

    Args:
        student_model: timm model to train; two-headed distilled models answer with the mean of their heads.
        teacher_model: timm name, ``hf-hub:``/``local-dir:`` name or module; frozen here, for good. A teacher
            with BatchNorm is copied with its norms folded into the convolutions. With one that has no head
            (``num_classes`` 0) KD and difference are off: task loss and contrast remain. With a student without a
            head the contrast alone remains, of the last stages and of the pooled features; targets are not read.
        criterion: classification loss; created from ``criterion_kwargs`` by timm when None.
        views: V, the views of each image in a batch.
        distill_loss_weight, task_loss_weight, loss_type, temperature: timm's names for the loss between logits.
        loss_kwargs: further parameters of that loss.
        warmup_epochs: epochs in which its weight rises from 0; :meth:`set_progress` tells where training stands.
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

    learns_unlabelled: ClassVar[bool] = True

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: str | nn.Module,
        criterion: nn.Module | None = None,
        criterion_kwargs: dict[str, object] | None = None,
        views: int = 2,
        distill_loss_weight: float | None = None,
        task_loss_weight: float | None = None,
        loss_type: str = Distil.kd_loss_type,
        loss_kwargs: Mapping[str, float] | None = None,
        temperature: float | None = None,
        warmup_epochs: float = Distil.kd_warmup_epochs,
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
        if views < 1 or (difference_loss_weight and views < 2):
            raise ValueError(
                f"a difference needs 2 views of an image, got views={views}: set the weight to 0 or views=2"
            )
        check_choice("contrast_where", contrast_where, get_args(Where))
        super().__init__(
            student_model,
            teacher_model,
            criterion,
            criterion_kwargs,
            Distillation(loss_type, loss_kwargs, temperature, distill_loss_weight, task_loss_weight, warmup_epochs),
            Inputs(input_size, input_mean, input_std, teacher_dtype, teacher_img_size),
            device=device,
            dtype=dtype,
            verbose=verbose,
        )
        self.views = views
        if not self.has_logits:
            self._check_without_logits(distill_loss_weight, contrast_loss_weight)
            difference_loss_weight = 0.0
        self.contrast_loss_weight, self.difference_loss_weight = contrast_loss_weight, difference_loss_weight
        self.contrast = ChannelContrastiveLoss(
            contrast_temperature, contrast_targets, contrast_direction, contrast_scope, contrast_negatives
        )
        self.difference = (
            DynamicDifferenceLoss(difference_temperature, views, difference_form, difference_views)
            if difference_loss_weight
            else None
        )
        if contrast_loss_weight:
            self._tap_contrast(contrast_where == "pooled", contrast_stages)

    def _check_without_logits(self, distill_loss_weight: float | None, contrast_loss_weight: float) -> None:
        """Refuse KD with a teacher that has no logits, and a distillation of which nothing remains."""
        if distill_loss_weight:
            raise ValueError(
                f"teacher {self.teacher_name} has no head, so KD has no logits of it: leave its weight"
                f" {distill_loss_weight:g} out, or choose a teacher with the student's classes"
            )
        if not contrast_loss_weight:
            raise ValueError(
                f"teacher {self.teacher_name} has no head, and the contrast's weight is 0: nothing is left"
            )

    def _tap_contrast(self, pooled: bool, wanted: Sequence[int] | None) -> None:
        """Choose the stages of both networks and build the maps between their channels."""
        shapes, headless = self.stage_shapes(), not self.classifies
        pooled, last = pooled, pooled or headless  # what lies above the tapped stage would not be trained
        stages = [choose_stages(s, wanted, role, last) for s, role in zip(shapes, ("student", "teacher"), strict=True)]
        pairs = [(shapes[0][s], shapes[1][t]) for s, t in zip(*stages, strict=True)]
        grids = [(1, 1) if pooled else common_grid(s[1:], t[1:]) for s, t in pairs]
        embedding = self._embedding_map() if headless else None
        self.tap(stages[0], stages[1], grids, [channel_map(s[0], t[0]) for s, t in pairs], embedding)

    def _embedding_map(self) -> nn.Module:
        """The map from the student's pooled features to the teacher's."""
        if not self.teacher.has_features:
            raise ValueError(f"teacher {self.teacher_name} does not pool its features: choose a timm classifier")
        if self.teacher.num_classes:
            raise ValueError(
                f"teacher {self.teacher_name} has a head and the student none: build it with num_classes=0"
            )
        student, (channels, height, width) = self._trainable().student, self.input_size
        widths = []
        with torch.no_grad():
            for network in (student, self.teacher):
                image = torch.zeros(1, channels, height, width, device=self.device, dtype=self.dtype)
                maps = network.eval().forward_features(image)  # type: ignore[operator]
                widths.append(network.forward_head(maps, pre_logits=True).shape[1])  # type: ignore[operator]
        return channel_map(widths[0], widths[1])

    @torch.no_grad()
    def contrast_of(self, images: Tensor, ema: bool = False) -> Tensor:
        """The channel contrast of images [N, C, H, W], of this process alone: a scalar to validate by."""
        _, maps = self._trainable(ema=ema)(images)
        _, others = self.teacher_answers(images)
        contrast = copy.copy(self.contrast)
        contrast.scope = "local"
        return torch.stack([contrast(s, t) for s, t in zip(maps, others, strict=True)]).mean()

    def _contrast_loss(self, answers: Answers) -> Tensor:
        pairs = zip(answers.student_maps, answers.teacher_maps, strict=True)
        return torch.stack([self.contrast(student, teacher) for student, teacher in pairs]).mean()

    def _difference_loss(self, answers: Answers) -> Tensor:
        assert self.difference is not None
        loss: Tensor = self.difference(answers.student, answers.teacher)
        return loss

    TERMS: ClassVar[tuple[Term, ...]] = (
        *TermTask.TERMS,
        Term("contrast_loss", lambda task: task.contrast_loss_weight, _contrast_loss),
        Term("difference_loss", lambda task: task.difference_loss_weight, _difference_loss, reads_logits=True),
    )
