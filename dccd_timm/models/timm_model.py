"""What we use of a timm classifier, as a type: timm has it in every family and declares it in no base class."""

from collections.abc import Callable, Sequence
from typing import TypedDict, cast

from torch import Tensor, nn


class Stage(TypedDict):
    """One entry of ``feature_info``."""

    num_chs: int
    reduction: int
    module: str


class TimmModel(nn.Module):
    """A timm classifier; a type only, of which no model is an instance."""

    num_classes: int
    num_features: int
    feature_info: Sequence[Stage]
    pretrained_cfg: dict[str, object]
    forward_features: Callable[[Tensor], Tensor]
    forward_head: Callable[..., Tensor]
    forward_intermediates: Callable[..., tuple[Tensor, list[Tensor]]]
    get_classifier: Callable[[], nn.Module | Sequence[nn.Module]]
    set_grad_checkpointing: Callable[..., None]


def as_timm(model: nn.Module) -> TimmModel:
    """The same model, to read what timm's classifiers have."""
    return cast(TimmModel, model)
