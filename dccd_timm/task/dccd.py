"""DCCDTask: task loss, KD, channel contrast and dynamic difference of a timm pair, from one forward of each.

Liu, Chen, Liu, "DCCD: Reducing Neural Network Redundancy via Distillation", IEEE TNNLS 35(7), 2024
(DOI 10.1109/TNNLS.2023.3238337). Only its abstract was available: the formulas are our reading of it.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from timm.data import resolve_input_data_config
from timm.task import TrainingTask, resolve_classification_loss
from timm.utils import unwrap_model
from torch import Tensor, nn

from dccd_timm.batch import fold_views
from dccd_timm.losses import ChannelContrastiveLoss, DynamicDifferenceLoss, distillation_loss
from dccd_timm.losses.contrast import common_grid
from dccd_timm.models.fold import fold_batch_norms
from dccd_timm.models.taps import check_tappable, choose_stages, probe, single_head
from dccd_timm.models.teacher import FrozenTeacher, check_classes, freeze, load_teacher
from dccd_timm.task.trainable import TappedStudent


class DCCDTask(TrainingTask):
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
        distill_loss_weight, task_loss_weight, temperature: timm's words for KD.
        contrast_stages: stages counted from the end; None takes the deepest with at least 16 positions.
        contrast_where: ``spatial`` (all positions) or ``pooled`` (global average).
        contrast_targets, contrast_negatives, contrast_direction, contrast_scope: as in
            :class:`dccd_timm.ChannelContrastiveLoss`.
        difference_views: the two views whose difference is compared.
        input_size, input_mean, input_std: images [C, H, W] and their normalisation; default: the student's own.
        teacher_dtype: precision of the teacher, whatever the student's; None computes as autocast says.

    Raises:
        ValueError: when the pair cannot work: class counts, feature maps, channels, views; one line each.
    """

    def __init__(
        self,
        student_model: nn.Module,
        teacher_model: str | nn.Module,
        criterion: nn.Module | None = None,
        criterion_kwargs: dict[str, Any] | None = None,
        views: int = 2,
        distill_loss_weight: float | None = None,
        task_loss_weight: float | None = None,
        temperature: float = 4.0,
        contrast_loss_weight: float = 5.0,
        contrast_temperature: float = 0.1,
        contrast_where: str = "spatial",
        contrast_stages: Sequence[int] | None = None,
        contrast_direction: str = "symmetric",
        contrast_targets: str = "soft",
        contrast_negatives: str = "teacher",
        contrast_scope: str = "global",
        difference_loss_weight: float = 0.02,
        difference_temperature: float = 4.0,
        difference_form: str = "kl",
        difference_views: Sequence[int] = (0, 1),
        input_size: Sequence[int] | None = None,
        input_mean: Sequence[float] | None = None,
        input_std: Sequence[float] | None = None,
        teacher_dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        if views < 1 or (difference_loss_weight > 0 and views < 2):
            raise ValueError(
                f"a difference needs 2 views of an image, got views={views}: set the weight to 0 or views=2"
            )
        if contrast_where not in ("spatial", "pooled"):
            raise ValueError(f"contrast_where must be spatial or pooled, got {contrast_where!r}")
        check_tappable(student_model, "student")
        single_head(student_model)
        student_model.to(device=self.device, dtype=self.dtype)
        num_classes = student_model.num_classes
        if isinstance(teacher_model, str):
            teacher_model = load_teacher(teacher_model, num_classes=num_classes)  # type: ignore[arg-type]
        check_classes(teacher_model, num_classes)  # type: ignore[arg-type]
        config = resolve_input_data_config(student_model)
        size = tuple(input_size or config["input_size"])
        teacher_model = fold_batch_norms(freeze(teacher_model))
        mean, std = input_mean or config["mean"], input_std or config["std"]
        self.teacher = FrozenTeacher(teacher_model, mean, std, size, teacher_dtype or self.dtype)
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
            if difference_loss_weight > 0
            else None
        )
        self.teacher_stages: list[int] = []
        self.trainable_module: nn.Module = self._tap(student_model, size, contrast_where, contrast_stages)

    def _tap(
        self, student: nn.Module, size: tuple[int, ...], where: str, wanted: Sequence[int] | None
    ) -> TappedStudent:
        """Choose the stages of both networks and build the maps between their channels."""
        if self.contrast_loss_weight == 0:
            return TappedStudent(student, [], [], [])
        pooled = where == "pooled"
        teacher_size = (self.teacher.in_chans, *(self.teacher.own_input_size or size[1:]))
        shapes = probe(student, size, "student"), probe(self.teacher.model, teacher_size, "teacher")
        stages = [
            choose_stages(s, wanted, role, pooled) for s, role in zip(shapes, ("student", "teacher"), strict=True)
        ]
        self.teacher_stages = stages[1]
        pairs = [(shapes[0][s], shapes[1][t]) for s, t in zip(*stages, strict=True)]
        grids = [(1, 1) if pooled else common_grid(s[1:], t[1:]) for s, t in pairs]
        widths = [(s[0], t[0]) for s, t in pairs]
        return TappedStudent(student, stages[0], grids, widths).to(device=self.device, dtype=self.dtype)

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
        logits, teacher_logits = logits.float(), teacher_logits.float()
        parts = {"task_loss": (self.task_loss_weight, self.criterion(logits, target))}
        if self.distill_loss_weight:
            parts["kd_loss"] = self.distill_loss_weight, distillation_loss(logits, teacher_logits, self.temperature)
        if maps:
            terms = [self.contrast(s, t) for s, t in zip(maps, teacher_maps, strict=True)]
            parts["contrast_loss"] = self.contrast_loss_weight, torch.stack(terms).mean()
        if self.difference is not None:
            parts["difference_loss"] = self.difference_loss_weight, self.difference(logits, teacher_logits)
        loss = sum(weight * value for weight, value in parts.values())
        return {"loss": loss, "output": logits, **{name: value.detach() for name, (_, value) in parts.items()}}

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> Self:
        """Wrap student and channel maps in DistributedDataParallel, for timm's own loop; accelerate does it itself."""
        self.trainable_module = nn.parallel.DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        """Compile student and teacher, not the losses (their collectives cannot be); returns the eval model."""
        student = unwrap_model(self.trainable_module).student
        self.eval_model: Any = torch.compile(student, backend=backend, mode=mode, **compile_kwargs)
        trainable: Any = torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)
        self.trainable_module = trainable
        self.teacher.compile(backend=backend, mode=mode, **compile_kwargs)
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """The plain student under EMA, DDP or compile wrappers."""
        resolved = super().get_eval_model(module=module, ema=ema)
        inner = None if resolved is None else _unwrapped(resolved)
        return inner.student if isinstance(inner, TappedStudent) else resolved

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """The channel maps' weights, apart from the student's."""
        trainable = self._trainable(module, ema)
        state = trainable.channel_maps.state_dict() if trainable is not None else {}
        return {"channel_maps": state} if state else {}

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Load what :meth:`get_task_state` gave.

        Raises:
            RuntimeError: when the maps do not fit, or there is no EMA to load into.
        """
        trainable = self._trainable(module, ema)
        if not state:
            return
        if trainable is None:
            raise RuntimeError("cannot load task state: there is no such trainable module (setup_ema() not called?)")
        trainable.channel_maps.load_state_dict(state["channel_maps"], strict=strict)

    def get_clip_parameters(self, exclude_head: bool = False) -> list[nn.Parameter]:
        """Parameters to clip; ``exclude_head`` leaves out those of the classifier(s), however many they are."""
        trainable = self._trainable(None, False)
        assert trainable is not None
        head: set[int] = set()
        if exclude_head:
            classifier = trainable.student.get_classifier()  # type: ignore[operator]
            modules = classifier if isinstance(classifier, tuple | list) else [classifier]
            head = {id(p) for m in modules if isinstance(m, nn.Module) for p in m.parameters()}
        return [p for p in trainable.parameters() if id(p) not in head]

    def _trainable(self, module: nn.Module | None, ema: bool) -> TappedStudent | None:
        module = module if module is not None else self.get_trainable_module(ema=ema)
        return None if module is None else _unwrapped(module)  # type: ignore[return-value]


def _unwrapped(module: nn.Module) -> nn.Module:
    """What lies under EMA, DDP and compile wrappers, in whatever order."""
    while True:
        inner = getattr(module, "_orig_mod", None) or getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner
