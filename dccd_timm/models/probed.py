"""A frozen network without a head, and a linear one on its pooled features."""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from dccd_timm.errors import UserError
from dccd_timm.models.timm_model import as_timm


class ProbedModel(nn.Module):
    """A timm model with a linear head in place of its own; all else is asked of the model itself.

    Args:
        model: without a head (``num_classes`` 0).
        weight: [K, C], from pooled features to logits.
        bias: [K].
    """

    def __init__(self, model: nn.Module, weight: Float[Tensor, "K C"], bias: Float[Tensor, " K"]) -> None:
        super().__init__()
        self.model, self.num_classes = model, len(weight)
        self.probe = nn.Linear(weight.shape[1], len(weight))
        self.probe.load_state_dict({"weight": weight, "bias": bias})

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return cast(nn.Module, getattr(super().__getattr__("model"), name))

    def get_classifier(self) -> nn.Module:
        """The linear head."""
        return self.probe

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [N, K] of unpooled features, or the pooled ones [N, C]."""
        pooled = as_timm(self.model).forward_head(features, pre_logits=True)
        return pooled if pre_logits else self.probe(pooled)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images."""
        return self.forward_head(as_timm(self.model).forward_features(images))


def check_pools(model: nn.Module, name: str) -> None:
    """Refuse an encoder that does not pool its features.

    Raises:
        UserError: names it.
    """
    if not (hasattr(model, "forward_head") and hasattr(model, "get_classifier")):
        raise UserError(f"teacher {name} does not pool its features: choose a timm classifier for --kd-teacher-probe")
