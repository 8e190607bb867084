"""Small networks for 32 pixels: MobileNetV2 of half width, ShuffleNet V1 and V2.

Sandler et al., "MobileNetV2", CVPR 2018, section 3; Zhang et al., "ShuffleNet", CVPR 2018, section 3; Ma et al.,
"ShuffleNet V2", ECCV 2018, section 3. Activations are plain ReLUs, as the benchmark has them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.models.cifar.base import CifarNet, initialise_narrow, register


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)


def _shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of ``groups`` groups."""
    grouped: Tensor = x.unflatten(1, (groups, -1))
    return grouped.transpose(1, 2).flatten(1, 2)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv(inputs, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True),
            _conv(hidden, hidden, 3, stride, hidden), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True),
            _conv(hidden, outputs, 1), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class CifarMobileNetV2(CifarNet):
    """MobileNetV2 with expansion 6 and half the width; its last convolution keeps 1280 channels."""

    head = "classifier"
    first_conv, linear_name = "conv1.0", "classifier.0"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__((16, 12, 16, 48, 160), (2, 2, 4, 8, 16), 1280, num_classes, drop_rate)
        self.conv1 = nn.Sequential(_conv(in_chans, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        settings = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2),
                    (6, 160, 1, 1))  # fmt: skip
        inputs, groups = 16, []
        for expansion, width, count, stride in settings:
            blocks = []
            for number in range(count):
                blocks.append(InvertedResidual(inputs, width, stride if number == 0 else 1, expansion))
                inputs = width
            groups.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*groups)
        self.conv2 = nn.Sequential(_conv(160, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU(inplace=True))
        self._finish()

    def _set_classifier(self, layer: nn.Module) -> None:
        self.classifier = nn.Sequential(layer)

    def _initialise_classifier(self, layer: nn.Linear) -> None:
        initialise_narrow(layer)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The stem, and the blocks of each width that the benchmark taps."""
        maps = [self.conv1(x)]
        for first, end in ((0, 2), (2, 3), (3, 5), (5, 7)):
            maps.append(self.blocks[first:end](maps[-1]))
        return maps

    def last(self, x: Tensor) -> Tensor:
        """The wide 1x1 convolution."""
        x = self.conv2(x)
        return x


class ShuffleUnit(nn.Module):
    """Grouped 1x1 convolution, shuffle, depthwise and grouped 1x1 convolution; stride 2 keeps the input beside it."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride = stride
        self.groups = 1 if inputs == 24 else groups  # so few channels are not grouped
        width = outputs // 4
        self.conv1, self.bn1 = _conv(inputs, width, 1, groups=self.groups), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride, width), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1, groups=groups), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        y = _shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, padding=1)], 1))


class CifarShuffleNetV1(CifarNet):
    """ShuffleNet with 3 groups and a 1x1 stem."""

    head = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__((24, 240, 480, 960), (1, 2, 4, 8), 960, num_classes, drop_rate)
        self.conv1, self.bn1 = _conv(in_chans, 24, 1), nn.BatchNorm2d(24)
        inputs = 24
        for number, (width, count) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
            units = [
                ShuffleUnit(inputs, width - inputs, 2, 3),
                *(ShuffleUnit(width, width, 1, 3) for _ in range(count - 1)),
            ]
            self.add_module(f"layer{number}", nn.Sequential(*units))
            inputs = width
        self._finish()

    def _initialise_convolution(self, layer: nn.Conv2d) -> None:
        """The benchmark leaves torch's own first weights."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """Stem and three stages, each after its ReLU."""
        maps = [F.relu(self.bn1(self.conv1(x)))]
        for number in (1, 2, 3):
            maps.append(self.get_submodule(f"layer{number}")(maps[-1]))
        return maps


class SplitUnit(nn.Module):
    """Half of the channels pass; the others go through 1x1, depthwise and 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1, self.bn1 = _conv(half, half, 1), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = _conv(half, half, 3, groups=half), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = _conv(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        kept, y = x.chunk(2, dim=1)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(y)))))
        return _shuffle(torch.cat([kept, F.relu(self.bn3(self.conv3(y)))], 1), 2)


class DownUnit(nn.Module):
    """Both branches at stride 2, each giving half of the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.bn1 = _conv(inputs, inputs, 3, 2, inputs), nn.BatchNorm2d(inputs)
        self.conv2, self.bn2 = _conv(inputs, half, 1), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = _conv(inputs, half, 1), nn.BatchNorm2d(half)
        self.conv4, self.bn4 = _conv(half, half, 3, 2, half), nn.BatchNorm2d(half)
        self.conv5, self.bn5 = _conv(half, half, 1), nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H / 2, W / 2]."""
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        return _shuffle(torch.cat([left, F.relu(self.bn5(self.conv5(right)))], 1), 2)


class CifarShuffleNetV2(CifarNet):
    """ShuffleNet V2 of width 1 with a 1x1 stem."""

    head = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__((24, 116, 232, 464), (1, 2, 4, 8), 1024, num_classes, drop_rate)
        self.conv1, self.bn1 = _conv(in_chans, 24, 1), nn.BatchNorm2d(24)
        inputs = 24
        for number, (width, count) in enumerate(((116, 3), (232, 7), (464, 3)), start=1):
            units = [DownUnit(inputs, width), *(SplitUnit(width) for _ in range(count))]
            self.add_module(f"layer{number}", nn.Sequential(*units))
            inputs = width
        self.conv2, self.bn2 = _conv(464, 1024, 1), nn.BatchNorm2d(1024)
        self._finish()

    def _initialise_convolution(self, layer: nn.Conv2d) -> None:
        """The benchmark leaves torch's own first weights."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """Stem and three stages."""
        maps = [F.relu(self.bn1(self.conv1(x)))]
        for number in (1, 2, 3):
            maps.append(self.get_submodule(f"layer{number}")(maps[-1]))
        return maps

    def last(self, x: Tensor) -> Tensor:
        """The wide 1x1 convolution."""
        return F.relu(self.bn2(self.conv2(x)))


register(
    __name__,
    {
        "cifar_mobilenetv2_050": (CifarMobileNetV2, {}),
        "cifar_shufflenetv1": (CifarShuffleNetV1, {}),
        "cifar_shufflenetv2": (CifarShuffleNetV2, {}),
    },
)
