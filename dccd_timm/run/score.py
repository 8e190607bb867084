"""What a validation measures: accuracy; without labels that of k-NN and of a linear probe, or the loss."""

from collections.abc import Callable
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from dccd_timm.data.loader import EvalLoader
from dccd_timm.engine.evaluate import evaluate, images_of
from dccd_timm.engine.probe import Featured, extract_features, gather_rows, knn_top1, train_probe
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.run.pieces import Training
from dccd_timm.task.dccd import DCCDTask

# Passes of the linear probe over its features
_EPOCHS = 100


def score(
    recipe: Recipe,
    training: Training,
    accelerator: Accelerator,
    model: nn.Module,
    stopping: Callable[[], bool] = lambda: False,
    ema: bool = False,
) -> dict[str, float] | None:
    """Metrics of a validation of the student ``model``, the averaged one if ``ema``, with the number of its ``images``
    and of those ``skipped``; None when any rank is stopped before its end.

    Raises:
        UserError: when no image could be read.
    """
    assert training.val is not None
    if not recipe.is_unlabelled:
        return evaluate(
            model, training.val, accelerator, training.task.create_evaluator(), recipe.channels_last, stopping
        )
    if training.probe is None:
        return _validation_loss(recipe, training, training.val, accelerator, ema)
    return score_features(recipe, training, accelerator, model)


def score_features(recipe: Recipe, training: Training, accelerator: Accelerator, model: nn.Module) -> dict[str, float]:
    """Top-1 in percent on the validation split of k-NN (``knn``) and of a linear head (``probe``), both from the
    features of the probe split."""
    assert training.val is not None and training.probe is not None
    network = cast(Featured, model.eval())
    bank, classes, unread = extract_features(network, training.probe, accelerator, recipe.channels_last)
    features, target, skipped = extract_features(network, training.val, accelerator, recipe.channels_last)
    counts = torch.tensor([len(bank), len(features), sum(unread.values()), sum(skipped.values())])
    counts = accelerator.reduce(counts.to(accelerator.device)) if accelerator.num_processes > 1 else counts
    if not int(counts[:2].min()):
        raise UserError(f"no image of split {recipe.val_split} or {recipe.probe_split} could be read")
    width = torch.tensor([bank.shape[1], features.shape[1]]).max()
    widest = max(gather_object([int(width)]))
    bank, features = (rows if len(rows) else rows.new_zeros(0, widest) for rows in (bank, features))
    num_classes = max(gather_object([1 + max(int(t.max()) if len(t) else 0 for t in (classes, target))]))
    weight, bias = train_probe(bank, classes.to(bank.device), num_classes, _EPOCHS, accelerator)
    right = (features @ weight.T + bias).argmax(1) == target.to(features.device)
    whole, all_classes = gather_rows(bank, accelerator), gather_rows(classes.to(bank.device), accelerator)
    near = knn_top1(whole, all_classes, features, target.to(features.device)) * len(features)
    sums = torch.tensor([near, 100.0 * int(right.sum())], device=features.device)
    knn, probe = (accelerator.reduce(sums) if accelerator.num_processes > 1 else sums).tolist()
    images, skips = int(counts[1]), int(counts[3])
    return {"knn": knn / images, "probe": probe / images, "images": images, "skipped": skips}


def _validation_loss(
    recipe: Recipe, training: Training, val: EvalLoader, accelerator: Accelerator, ema: bool
) -> dict[str, float]:
    """The loss on the validation split's images, one view of each: the mean over batches, weighted by their images."""
    task = training.task
    assert isinstance(task, DCCDTask)
    task.eval()
    sums, skipped = torch.zeros(2, device=accelerator.device), dict[str, int]()
    for batch in val:
        skipped.update(batch.skipped)
        if len(batch.views):
            with accelerator.autocast():
                value = task.contrast_of(images_of(batch, recipe.channels_last), ema)
            sums += torch.stack([value.float() * len(batch.views), value.new_tensor(len(batch.views)).float()])
    total, images = (accelerator.reduce(sums) if accelerator.num_processes > 1 else sums).tolist()
    if not images:
        raise UserError(f"no image of split {recipe.val_split} could be read")
    skips = {name: number for part in gather_object([skipped]) for name, number in part.items()}
    loss = task.contrast_loss_weight * total / images
    return {"loss": loss, "images": int(images), "skipped": sum(skips.values())}
