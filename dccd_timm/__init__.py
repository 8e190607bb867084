"""dccd-timm: make small timm models good by distillation (DCCD, IEEE TNNLS 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dccd_timm.data.views import MultiViewTransform
    from dccd_timm.losses import ChannelContrastiveLoss, DynamicDifferenceLoss
    from dccd_timm.task.dccd import DCCDTask

    __version__: str

__all__ = ["ChannelContrastiveLoss", "DCCDTask", "DynamicDifferenceLoss", "MultiViewTransform"]

# Imported when they are first asked for: the programs print --help without torch and timm.
_MODULES = {
    "ChannelContrastiveLoss": "dccd_timm.losses",
    "DCCDTask": "dccd_timm.task.dccd",
    "DynamicDifferenceLoss": "dccd_timm.losses",
    "MultiViewTransform": "dccd_timm.data.views",
}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dccd-timm")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
