"""ResNets for 32 pixels: 6n + 2 layers of 16 to 64 or 32 to 256 channels, and a ResNet-50 with a small stem.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.models.cifar.base import CifarNet, register


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(CifarNet):
    """6n + 2 layers: a 3x3 stem and three stages of n basic blocks.

    Args:
        depth: layers, 6n + 2.
        channels: of the stem and the three stages.
    """

    head = "fc"

    def __init__(
        self,
        depth: int = 20,
        channels: tuple[int, ...] = (16, 16, 32, 64),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(channels, (1, 1, 2, 4), channels[-1], num_classes, drop_rate)
        blocks = (depth - 2) // 6
        self.conv1, self.bn1 = _conv(in_chans, channels[0], 3), nn.BatchNorm2d(channels[0])
        for number in (1, 2, 3):
            inputs, outputs = channels[number - 1], channels[number]
            first = BasicBlock(inputs, outputs, 1 if number == 1 else 2)
            rest = (BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self._finish()

    def stages(self, x: Tensor) -> list[Tensor]:
        """Stem and three stages, each after its ReLU."""
        maps = [F.relu(self.bn1(self.conv1(x)))]
        for number in (1, 2, 3):
            maps.append(self.get_submodule(f"layer{number}")(maps[-1]))
        return maps


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution, four times as wide at the end."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(_conv(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.shortcut is None else self.shortcut(x)))


class CifarResNet50(CifarNet):
    """ResNet-50 with a 3x3 stem of stride 1 and no pooling after it."""

    head = "linear"

    def __init__(self, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__((64, 256, 512, 1024, 2048), (1, 1, 2, 4, 8), 2048, num_classes, drop_rate)
        self.conv1, self.bn1 = _conv(in_chans, 64, 3), nn.BatchNorm2d(64)
        inputs = 64
        for number, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, 2 if number > 1 and block == 0 else 1))
                inputs = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self._finish()

    def stages(self, x: Tensor) -> list[Tensor]:
        """Stem and four stages, each after its ReLU."""
        maps = [F.relu(self.bn1(self.conv1(x)))]
        for number in (1, 2, 3, 4):
            maps.append(self.get_submodule(f"layer{number}")(maps[-1]))
        return maps


_WIDE = (32, 64, 128, 256)

register(
    __name__,
    {
        **{f"cifar_resnet{depth}": (CifarResNet, dict(depth=depth)) for depth in (8, 14, 20, 32, 44, 56, 110)},
        **{f"cifar_resnet{depth}x4": (CifarResNet, dict(depth=depth, channels=_WIDE)) for depth in (8, 32)},
        "cifar_resnet50": (CifarResNet50, {}),
    },
)
