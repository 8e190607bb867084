"""The CIFAR networks of the contrastive-distillation benchmark; importing this registers them in timm."""

from dccd_timm.models.cifar import mobile, resnet, vgg, wrn

__all__ = ["mobile", "resnet", "vgg", "wrn"]
