"""A split through timm's evaluator, over all ranks, with a teacher beside the student when there is one."""

import sys
from collections.abc import Callable, Iterable
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


@torch.inference_mode()
def pooled_features(model: Any, loader: Iterable[Batch], limit: int) -> torch.Tensor:
    """Features before the classifier, [N, C] on the CPU, of the first ``limit`` images of this rank."""
    model.eval()
    rows, count = [], 0
    for batch in loader:
        pooled = model.forward_head(model.forward_features(batch.views[:, 0]), pre_logits=True)
        rows.append(pooled.float().cpu())
        count += len(pooled)
        if count >= limit:
            break
    return torch.cat(rows)[:limit]
