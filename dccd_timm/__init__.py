"""dccd-timm: make small timm models good by distillation (DCCD, IEEE TNNLS 2023)."""

from importlib.metadata import PackageNotFoundError, version

from dccd_timm.data.views import MultiViewTransform
from dccd_timm.losses import ChannelContrastiveLoss, DynamicDifferenceLoss
from dccd_timm.task.dccd import DCCDTask

try:
    __version__ = version("dccd-timm")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["ChannelContrastiveLoss", "DCCDTask", "DynamicDifferenceLoss", "MultiViewTransform"]
