"""A split through timm's evaluator, over all ranks, with a teacher beside the student when there is one."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from dccd_timm.batch import Batch


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[Batch],
    accelerator: Accelerator,
    evaluator: Any,
    teacher: nn.Module | None = None,
    teacher_evaluator: Any = None,
    channels_last: bool = False,
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Loss, top1 and top5 in percent over a split, each image counted once.

    ``evaluator`` is timm's, from ``task.create_evaluator()``. With a teacher also ``teacher_*`` and ``agreement``, the
    percentage of images to which both give the same class. None when any rank is told to stop in the middle.
    """
    model.eval()
    same = torch.zeros(2, dtype=torch.int64, device=accelerator.device)
    quiet = not accelerator.is_main_process or not sys.stderr.isatty()
    for batch in tqdm(loader, desc="validate", unit="batch", disable=quiet, leave=False, dynamic_ncols=True):
        if stopping():
            break
        images = batch.views[:, 0]
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with accelerator.autocast():
            logits = model(images)
            teacher_logits = None if teacher is None else teacher(images)
        evaluator.update(logits, batch.target)
        if teacher_logits is not None:
            teacher_evaluator.update(teacher_logits, batch.target)
            same[0] += (logits.argmax(1) == teacher_logits.argmax(1)).sum()
            same[1] += len(logits)
    distributed = accelerator.num_processes > 1
    stopped = torch.tensor(int(stopping()), device=accelerator.device)
    if accelerator.reduce(stopped) if distributed else stopped:
        return None
    metrics: dict[str, float] = dict(evaluator.compute(distributed=distributed))
    if teacher is not None:
        totals = teacher_evaluator.compute(distributed=distributed)
        metrics |= {f"teacher_{name}": value for name, value in totals.items()}
        agreed, count = accelerator.reduce(same, "sum").tolist()
        metrics["agreement"] = 100 * agreed / max(count, 1)
    return metrics


@dataclass
class Seen:
    """What networks made of a split: classes [N] of its images and of each network's answers, over all ranks, and
    pooled features [n, C] of this rank's first images."""

    target: torch.Tensor
    answers: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]


@torch.inference_mode()
def observe(
    networks: dict[str, Any], loader: Iterable[Batch], accelerator: Accelerator, limit: int, features_only: str = ""
) -> Seen:
    """One pass of all ``networks`` over a split; features of the first ``limit`` images, before the classifier.

    The network called ``features_only`` answers nothing and sees no more than these.
    """
    for network in networks.values():
        network.eval()
    answering = [label for label in networks if label != features_only]
    pooled: dict[str, list[torch.Tensor]] = {label: [] for label in networks}
    rows = [torch.empty(0, 1 + len(answering), dtype=torch.long, device=accelerator.device)]
    count = 0
    for batch in loader:
        images, columns = batch.views[:, 0], [batch.target]
        for label, network in networks.items():
            if label == features_only and count >= limit:
                continue
            maps = network.forward_features(images)
            if count < limit:
                pooled[label].append(network.forward_head(maps, pre_logits=True).float().cpu())
            if label != features_only:
                columns.append(network.forward_head(maps).argmax(1))
        count += len(images)
        rows.append(torch.stack(columns, 1))
    table = torch.cat(rows)
    if accelerator.num_processes > 1:
        table = accelerator.gather(accelerator.pad_across_processes(table, pad_index=-1))
        table = table[table[:, 0] >= 0]
    target, *answers = table.cpu().unbind(1)
    features = {label: torch.cat(parts)[:limit] for label, parts in pooled.items() if parts}
    return Seen(target, dict(zip(answering, answers, strict=True)), features)
