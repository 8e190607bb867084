"""One pass over a split, on all ranks: metrics by timm's evaluator, answers and features of one network or several."""

import contextlib
import logging
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm import tqdm

from dccd_timm.batch import Batch
from dccd_timm.errors import UserError

_logger = logging.getLogger(__name__)


class Evaluator(Protocol):
    """What timm's ``task.create_evaluator()`` returns."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add logits [N, K] for target classes [N]."""

    def compute(self, distributed: bool = False) -> Mapping[str, float]:
        """Loss, top1 and top5 in percent, over all ranks when ``distributed``."""


@dataclass
class Evaluation:
    """The result of one pass over a split.

    ``metrics`` are loss, top1 and top5 in percent by network, each image counted once over all ranks. ``target`` [N]
    are the classes of the images of all ranks and ``answers`` [N] those that each network gives them. ``features`` are
    the pooled features [n, C] of this rank's first images. ``skipped`` names what no rank could read, with a number of
    images each.
    """

    metrics: dict[str, dict[str, float]]
    target: Tensor
    answers: dict[str, Tensor]
    features: dict[str, Tensor]
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of images that the metrics are from, and of those that could not be read."""
        return {"images": len(self.target), "skipped": sum(self.skipped.values())}

    def joined(self, other: "Evaluation") -> "Evaluation":
        """This with the networks of ``other``, a pass over the same images."""
        return replace(
            self,
            metrics=self.metrics | other.metrics,
            answers=self.answers | other.answers,
            features=self.features | other.features,
        )

    def only(self, network: str) -> "Evaluation":
        """This for one network."""
        return replace(
            self,
            metrics={network: self.metrics[network]},
            answers={network: self.answers[network]},
            features={name: features for name, features in self.features.items() if name == network},
        )

    def agreement(self, network: str, other: str) -> float:
        """The images, in percent, to which both networks give the same class."""
        same = self.answers[network] == self.answers[other]
        return 100 * int(same.sum()) / max(len(same), 1)


def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    accelerator: Accelerator,
    evaluator: Evaluator,
    channels_last: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Loss, top1 and top5 in percent of one model over a split, and the number of its images that they are from and
    that could not be read; None when any rank is stopped before its end.

    Raises:
        UserError: when no image of the split could be read.
    """
    networks = {"model": model}
    evaluation = evaluate_together(networks, loader, accelerator, lambda: evaluator, channels_last, stopping)
    return None if evaluation is None else evaluation.metrics["model"] | evaluation.counts


@torch.inference_mode()
def evaluate_together(
    networks: Mapping[str, nn.Module],
    loader: Iterable[Batch],
    accelerator: Accelerator,
    create_evaluator: Callable[[], Evaluator],
    channels_last: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    feature_images: int = 0,
    features_only: Mapping[str, nn.Module] | None = None,
) -> Evaluation | None:
    """Evaluate ``networks`` side by side in one pass over a split; None when any rank is stopped before its end.

    All of it comes from the same forward pass under the accelerator's autocast: with mixed precision the features have
    the precision of the metrics. Features are those before the classifier, of the first ``feature_images`` images of
    this rank; the networks of ``features_only`` see no other images and are not evaluated.

    Raises:
        UserError: when no image of the split could be read.
    """
    members = {name: _Member(network, create_evaluator()) for name, network in networks.items()}
    members |= {name: _Member(network, None) for name, network in (features_only or {}).items()}
    targets = [torch.empty(0, dtype=torch.long, device=accelerator.device)]
    skipped, count = dict[str, int](), 0
    quiet = not accelerator.is_main_process or not sys.stderr.isatty()
    for batch in tqdm(loader, desc="validate", unit="batch", disable=quiet, leave=False, dynamic_ncols=True):
        if stopping():
            break
        skipped.update(batch.skipped)
        if not len(batch.views):
            continue
        images = images_of(batch, channels_last)
        for member in members.values():
            member.update(images, batch.target, accelerator, with_features=count < feature_images)
        targets.append(batch.target)
        count += len(images)
    if _any_rank(stopping(), accelerator):
        return None
    answering = {name: m for name, m in members.items() if m.evaluator is not None}
    columns = [torch.cat(targets), *(torch.cat([targets[0], *m.answers]) for m in answering.values())]
    target, *answers = _gather(torch.stack(columns, 1), accelerator).cpu().unbind(1)
    skipped = _gather_skipped(skipped, len(target), accelerator)
    distributed = accelerator.num_processes > 1
    return Evaluation(
        {name: dict(m.evaluator.compute(distributed=distributed)) for name, m in answering.items() if m.evaluator},
        target,
        dict(zip(answering, answers, strict=True)),
        {name: torch.cat(m.features)[:feature_images] for name, m in members.items() if m.features},
        skipped,
    )


@contextlib.contextmanager
def kept_random_states(device: torch.device) -> Iterator[None]:
    """Leave the generators of the training as they were, whatever a reader of images draws."""
    python, array = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    random.setstate(python)
    np.random.set_state(array)


def images_of(batch: Batch, channels_last: bool) -> Tensor:
    """The images [N, C, H, W] of a batch of one view."""
    images = batch.views[:, 0]
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def _gather_skipped(skipped: dict[str, int], images: int, accelerator: Accelerator) -> dict[str, int]:
    """What the ranks skipped, together; warns that the metrics are from ``images`` only.

    Raises:
        UserError: when they are from no image.
    """
    skipped = {name: number for part in gather_object([skipped]) for name, number in part.items()}
    first = f"; the first: {next(iter(skipped))}" if skipped else ""
    if not images:
        raise UserError(f"no image of the validation split could be read{first}")
    if skipped and accelerator.is_main_process:
        _logger.warning("evaluated on %d images: %d could not be read%s", images, sum(skipped.values()), first)
    return skipped


def has_features(network: nn.Module) -> bool:
    """Whether a network gives its features by timm's two methods, as all of timm's do; one of a user's own may not."""
    own = hasattr(network, "forward_features") and hasattr(network, "forward_head")
    return own and getattr(network, "has_features", True)  # a frozen teacher says it of its model


class _Member:
    """One network of a pass, with what it has given so far; without an evaluator it gives features only."""

    def __init__(self, network: nn.Module, evaluator: Evaluator | None) -> None:
        self.network, self.evaluator = network.eval(), evaluator
        self.has_features = has_features(network)
        self.answers: list[Tensor] = []
        self.features: list[Tensor] = []

    def update(self, images: Tensor, target: Tensor, accelerator: Accelerator, with_features: bool) -> None:
        """Run the network on a batch of images [N, C, H, W] of classes [N]."""
        with_features = with_features and self.has_features
        if self.evaluator is None and not with_features:
            return
        with accelerator.autocast():
            if with_features:
                maps = self.network.forward_features(images)  # type: ignore[operator]
                pooled = self.network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
                self.features.append(pooled.float().cpu())
                logits = self.network.forward_head(maps)  # type: ignore[operator]
            else:
                logits = self.network(images)
        if self.evaluator is not None:
            self.evaluator.update(logits, target)
            self.answers.append(logits.argmax(1))


def _any_rank(flag: bool, accelerator: Accelerator) -> bool:
    value = torch.tensor(int(flag), device=accelerator.device)
    return bool(accelerator.reduce(value) if accelerator.num_processes > 1 else value)


def _gather(table: Tensor, accelerator: Accelerator) -> Tensor:
    """The rows of all ranks, whose numbers may differ; entries are not negative."""
    if accelerator.num_processes == 1:
        return table
    table = accelerator.gather(accelerator.pad_across_processes(table, pad_index=-1))
    return table[table[:, 0] >= 0]
