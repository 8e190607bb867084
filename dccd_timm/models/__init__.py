"""Student, frozen teacher, where their maps are tapped, and the literature's small networks under timm names."""

from dccd_timm.models import cifar

__all__ = ["cifar"]
