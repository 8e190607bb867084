"""Pure tensor maths: the distillation terms. All compute in float32, whatever the autocast dtype."""

from dccd_timm.losses.contrast import ChannelContrastiveLoss, channel_contrastive_loss
from dccd_timm.losses.difference import DynamicDifferenceLoss, dynamic_difference_loss
from dccd_timm.losses.feature import at, fitnet, rkd, sp, wkd
from dccd_timm.losses.logit import dist, dkd, kd, ls, ofa, wttm

__all__ = [
    "ChannelContrastiveLoss",
    "DynamicDifferenceLoss",
    "at",
    "channel_contrastive_loss",
    "dist",
    "dkd",
    "dynamic_difference_loss",
    "fitnet",
    "kd",
    "ls",
    "ofa",
    "rkd",
    "sp",
    "wkd",
    "wttm",
]
