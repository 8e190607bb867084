"""Small networks and batches for the tests of tasks."""

import timm
import torch

RESNET = dict(num_classes=10, layers=(1, 1, 1), stem_chs=8)


def resnet(seed=0, channels=(8, 16, 24), **kwargs):
    torch.manual_seed(seed)
    return timm.create_model("resnetv2_18", **{**RESNET, "channels": channels, **kwargs})


def batch(views=2, size=64, count=4, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, views, channels, size, size)
    return torch.randn(shape, generator=generator), torch.randint(0, 10, (count,), generator=generator)
