"""The classes of a network: their names, where it brings them, and the order of its answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from timm.models import get_model_input_config
from torch import nn

from dccd_timm.errors import UserError, composed
from dccd_timm.models.timm_model import as_timm


def class_names(model: nn.Module, checkpoint: str | None = None) -> list[str] | None:
    """Names of a model's classes in index order: ``label_names`` of its config.json, or, for a ``checkpoint``, of the
    one beside that file. None where there are none, or another number of them."""
    labels = labels_beside(Path(checkpoint)) if checkpoint else as_timm(model).pretrained_cfg.get("label_names")
    num_classes = as_timm(model).num_classes
    if isinstance(labels, Mapping):  # from index to name, as timm allows
        labels = [labels.get(index, labels.get(str(index))) for index in range(num_classes)]
    if not isinstance(labels, Sequence) or len(labels) != num_classes:
        return None
    return [composed(str(name)) for name in labels]


def labels_beside(checkpoint: Path) -> object:
    """``label_names`` of the config.json in a checkpoint's folder, None without."""
    try:
        config: object = json.loads((checkpoint.parent / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("label_names") if isinstance(config, dict) else None


@torch.no_grad()
def reorder_classes(model: nn.Module, order: Sequence[int], role: str) -> None:
    """Let a model's class ``n`` be the one that was its class ``order[n]``.

    Raises:
        UserError: when its classifier is no layer whose outputs can be exchanged.
    """
    index = torch.tensor(order)
    wanted = _answer(model)[:, index]
    heads = as_timm(model).get_classifier()
    heads = list(heads) if isinstance(heads, Sequence) else [heads]
    for head in heads:
        layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        if layers and len(layers[-1].weight) == len(order):
            for parameter in layers[-1].parameters(recurse=False):
                parameter.copy_(parameter[index.to(parameter.device)])
    if not torch.allclose(_answer(model), wanted, atol=1e-3 * wanted.std().item()):
        raise UserError(
            f"{role} has its classes in another order than the data set, and its classifier cannot be reordered: number"
            " the data set's classes alike with --class-map"
        )


def _answer(model: nn.Module) -> torch.Tensor:
    """Logits [1, classes] for an image of noise."""
    size = cast(tuple[int, ...], get_model_input_config(model)["input_size"])
    parameter = next(model.parameters())
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    was_training = model.training
    logits: torch.Tensor | tuple[torch.Tensor, ...] = model.eval()(image.to(parameter.device, parameter.dtype))
    model.train(was_training)
    return (torch.stack(logits).mean(0) if isinstance(logits, tuple) else logits).cpu()
