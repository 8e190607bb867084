"""Student, frozen teacher, where their maps are tapped, and the literature's small networks under timm names."""

from dccd_timm.models import cifar_mobile, cifar_resnet, cifar_vgg, cifar_wrn

__all__ = ["cifar_mobile", "cifar_resnet", "cifar_vgg", "cifar_wrn"]
