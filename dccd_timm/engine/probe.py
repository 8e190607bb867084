"""A linear head on the features of a frozen network: the features of a split, and the head that fits them best."""

from collections.abc import Iterable
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from dccd_timm.batch import Batch
from dccd_timm.engine.evaluate import images_of

# Rows whose logits are in memory at a time
_ROWS = 65536


class Featured(Protocol):
    """A network that gives pooled features by timm's two methods."""

    def forward_features(self, images: Tensor) -> Tensor:
        """Unpooled features of images [N, C, H, W]."""

    def forward_head(self, features: Tensor, pre_logits: bool) -> Tensor:
        """Pooled features [N, C] of unpooled ones, with ``pre_logits``."""


@torch.no_grad()
def extract_features(
    network: Featured, loader: Iterable[Batch], accelerator: Accelerator, channels_last: bool = False
) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Pooled features [n, C] in float32 and classes [n] of this rank's images, and what of them could not be read."""
    features, targets, skipped = [], [], dict[str, int]()
    for batch in loader:
        skipped.update(batch.skipped)
        if len(batch.views):
            with accelerator.autocast():
                maps = network.forward_features(images_of(batch, channels_last))
                features.append(network.forward_head(maps, pre_logits=True).float())
            targets.append(batch.target)
    if not features:
        return torch.empty(0, 0, device=accelerator.device), torch.empty(0, dtype=torch.long), skipped
    return torch.cat(features), torch.cat(targets), skipped


def train_probe(
    features: Tensor, target: Tensor, num_classes: int, epochs: int, accelerator: Accelerator
) -> tuple[Tensor, Tensor]:
    """Weight [K, C] and bias [K] of the linear head that fits the features [n, C] of all ranks.

    It minimises mean cross-entropy + |W|^2 / (2 N) over standardised features, which is scikit-learn's
    ``LogisticRegression`` with C = 1, by ``epochs`` steps of L-BFGS from 0, each of about one pass. There is no random
    number and no learning rate in it, and every rank gets the same head.
    """

    def total(value: Tensor) -> Tensor:
        summed: Tensor = accelerator.reduce(value, "sum") if accelerator.num_processes > 1 else value
        return summed

    count = total(torch.tensor(float(len(features)), device=features.device))
    mean = total(features.sum(0)) / count
    deviation = (total((features - mean).square().sum(0)) / count).sqrt()
    scale = torch.where(deviation > 0, deviation, 1.0)
    scaled = (features - mean) / scale
    weight = torch.zeros(num_classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=epochs, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.zeros((), device=features.device)
        for rows, classes in zip(scaled.split(_ROWS), target.split(_ROWS), strict=True):
            part = F.cross_entropy(F.linear(rows, weight, bias), classes, reduction="sum") / count
            part.backward()
            loss += part.detach()
        loss = total(loss) + weight.detach().square().sum() / (2 * count)
        for parameter in (weight, bias):
            parameter.grad = total(parameter.grad) if parameter.grad is not None else torch.zeros_like(parameter)
        assert weight.grad is not None
        weight.grad += weight.detach() / count
        return loss

    optimizer.step(closure)
    plain = weight.detach() / scale
    return plain, bias.detach() - plain @ mean


def knn_top1(bank: Tensor, classes: Tensor, features: Tensor, target: Tensor, k: int = 20) -> float:
    """The share in percent of the features [n, C] whose class is the most common one among their k nearest neighbours
    in the ``bank`` [N, C] by cosine; of several the smallest, as scikit-learn's ``KNeighborsClassifier`` has it."""
    unit, num_classes = F.normalize(bank), int(classes.max()) + 1
    right = 0
    for rows, wanted in zip(features.split(1024), target.split(1024), strict=True):
        nearest = (F.normalize(rows) @ unit.T).topk(min(k, len(bank))).indices
        votes = F.one_hot(classes[nearest], num_classes).sum(1)
        right += int((votes.argmax(1) == wanted).sum())
    return 100 * right / max(len(features), 1)


def gather_rows(value: Tensor, accelerator: Accelerator) -> Tensor:
    """The rows of all ranks, whose numbers may differ, on each of them."""
    if accelerator.num_processes == 1:
        return value
    counts = accelerator.gather(torch.tensor([len(value)], device=value.device)).tolist()
    padded: Tensor = accelerator.gather(accelerator.pad_across_processes(value))
    return torch.cat([part[:count] for part, count in zip(padded.chunk(len(counts)), counts, strict=True)])
