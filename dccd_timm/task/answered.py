"""A teacher whose answers are kept: each view of the training is answered once, and read from then on."""

from collections.abc import Callable, Sequence
from typing import Self, overload

import torch
from torch import Tensor, nn

from dccd_timm.batch import Batch, Draws
from dccd_timm.cache.form import Form, Rows
from dccd_timm.cache.identity import TeacherFacts
from dccd_timm.cache.shards import SKETCHES
from dccd_timm.cache.store import AnswerStore
from dccd_timm.errors import UserError
from dccd_timm.losses.contrast import pool_to
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.taps import probe

# Mean difference of a few pixels, of 255, from which views are others: rounding of other machines is below 2.
_OTHER_VIEWS = 4.0


class AnsweredTeacher(FrozenTeacher):
    """A frozen teacher that reads its answers to a training's views, and computes and keeps those that are not there.

    Images that no batch was announced for, as in a validation, it answers by itself.

    Args:
        facts: what is known of the teacher without loading it.
        store: the answers.
        teacher: the teacher, or a function that loads it when an answer is missing.
        mean, std: the student's normalisation, which timm's tasks read.
        dtype: precision of the teacher; None computes as autocast says.
    """

    def __init__(
        self,
        facts: TeacherFacts,
        store: AnswerStore,
        teacher: FrozenTeacher | Callable[[], FrozenTeacher],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype | None,
    ) -> None:
        nn.Module.__init__(self)
        self.facts, self.store, self.dtype = facts, store, dtype
        self.form: Form | None = None
        self.loaded = teacher if isinstance(teacher, FrozenTeacher) else None
        self._load = None if isinstance(teacher, FrozenTeacher) else teacher
        self._announced: Draws | None = None
        self.pretrained_cfg = dict(mean=tuple(mean), std=tuple(std))
        self.num_classes, self.in_chans = facts.num_classes, facts.input_size[0]
        loaded = self.loaded
        self.num_parameters = loaded.num_parameters if loaded else facts.num_parameters
        self.has_features, self.head_hidden_size = facts.has_features, None
        self.eval()

    def announce(self, batch: Batch) -> None:
        """Say that the next images are the views of this batch."""
        self._announced = batch.draws

    def conversions(self, student_size: Sequence[int]) -> str:
        """What is done to a student's images before, for people."""
        return self.facts.sees

    def input_size(self, student_size: Sequence[int]) -> tuple[int, int, int]:
        """Channels, height and width of the images that it gets."""
        return self.facts.input_size

    def stage_shapes(self, student_size: Sequence[int]) -> list[tuple[int, int, int]]:
        """Channels, height and width of the maps of every stage."""
        return self.facts.stages or probe(self.model, self.input_size(student_size), "teacher")

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The network, loaded."""
        return self.real().model

    def real(self) -> FrozenTeacher:
        """The teacher itself, which is loaded now if it has not been."""
        if self.loaded is None:
            assert self._load is not None
            self.loaded = self._load()
        return self.loaded

    # torch's signature, of which only keywords are used
    def compile(self, *args: object, **kwargs: object) -> None:
        """Compile the teacher, where it is loaded."""
        if self.loaded is not None:
            self.loaded.compile(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def forward_features(self, images: Tensor) -> Tensor:
        """The teacher's unpooled features, which are not kept."""
        return self.real().forward_features(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The teacher's head over :meth:`forward_features`."""
        return self.real().forward_head(features, pre_logits)

    @overload
    def forward(self, images: Tensor, stages: None = None) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, stages: Sequence[int]) -> tuple[Tensor, list[Tensor]]: ...

    @torch.no_grad()
    def forward(self, images: Tensor, stages: Sequence[int] | None = None) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits [N, K] in float32 for the student's images, and with ``stages`` the maps of those.

        Raises:
            UserError: for views that are not those of the answers.
        """
        found: tuple[Tensor, list[Tensor]] = self._answer(images, stages or ())
        return found[0] if stages is None else found

    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]  # files cannot be compiled
    def _answer(self, images: Tensor, stages: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        draws, self._announced = self._announced, None
        if draws is None or self.form is None:
            logits, maps = self.real()(images, stages)
            return logits, maps
        logits, maps = self._kept(images, draws, self.form)
        return logits, maps

    def _kept(self, images: Tensor, draws: Draws, form: Form) -> tuple[Tensor, list[Tensor]]:
        """Logits and maps from the store; what is missing there is computed and kept."""
        rows, found = self.store.read(draws.seeds)
        if found.any():
            _check_views(rows[SKETCHES], draws.sketches, found, self.store)
        if not found.all():
            rows = self._computed(images, draws, rows, found)
        del rows[SKETCHES]
        return form.unpack(rows, images.device)

    def _computed(self, images: Tensor, draws: Draws, rows: Rows, found: Tensor) -> Rows:
        """The ``rows`` with those that were not ``found``, which are computed and kept.

        The whole batch is computed, as it is without answers: the last bits may depend on its size.
        """
        assert self.form is not None
        logits, maps = self.real()(images, list(self.form.stages))
        pooled = [pool_to(values, shape[1:]) for values, shape in zip(maps, self.form.maps, strict=True)]
        fresh = self.form.pack(logits, pooled) | {SKETCHES: draws.sketches}
        new = ~found
        self.store.add(draws.seeds[new], draws.epochs[new], {name: values[new] for name, values in fresh.items()})
        for name, values in rows.items():
            fresh[name][found] = values[found]
        return fresh


def _check_views(kept: Tensor, seen: Tensor, found: Tensor, store: AnswerStore) -> None:
    """Refuse answers to other views: an image was replaced, or another library draws otherwise.

    Raises:
        UserError: for a difference that is more than rounding.
    """
    difference = (kept[found].float() - seen[found].float()).abs().mean((1, 2))
    if bool((difference > _OTHER_VIEWS).any()):
        raise UserError(
            f"{int((difference > _OTHER_VIEWS).sum())} images of a batch are not those that the answers in"
            f" {store.folder} belong to: the images, or the libraries that draw views, have changed since; give another"
            " folder to --kd-cache"
        )
