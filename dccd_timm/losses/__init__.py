"""Pure tensor maths: the three distillation terms. All compute in float32, whatever the autocast dtype."""

from dccd_timm.losses.contrast import ChannelContrastiveLoss, channel_contrastive_loss
from dccd_timm.losses.difference import DynamicDifferenceLoss, dynamic_difference_loss
from dccd_timm.losses.kd import distillation_loss

__all__ = [
    "ChannelContrastiveLoss",
    "DynamicDifferenceLoss",
    "channel_contrastive_loss",
    "distillation_loss",
    "dynamic_difference_loss",
]
