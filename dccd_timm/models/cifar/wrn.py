"""Wide residual networks for 32 pixels.

Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, section 2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.models.cifar.base import CifarNet, register


class PreActBlock(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions; a 1x1 shortcut, after norm and ReLU, where widths differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.convShortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        y = F.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(y)
        total: Tensor = shortcut + self.conv2(F.relu(self.bn2(self.conv1(y))))
        return total


class Group(nn.Module):
    """Blocks of one width; a module of its own because public checkpoints name it ``layer``."""

    def __init__(self, blocks: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = PreActBlock(inputs, outputs, stride)
        self.layer = nn.Sequential(first, *(PreActBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H', W']."""
        x = self.layer(x)
        return x


class CifarWideResNet(CifarNet):
    """6n + 4 layers, ``widen`` times as wide as 16, 32 and 64.

    Args:
        depth: layers, 6n + 4.
        widen: factor on the widths of the three groups.
    """

    head = "fc"

    def __init__(
        self, depth: int = 16, widen: int = 1, num_classes: int = 100, in_chans: int = 3, drop_rate: float = 0.0
    ) -> None:
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        super().__init__(widths, (1, 1, 2, 4), widths[-1], num_classes, drop_rate)
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        for number in (1, 2, 3):
            stride = 1 if number == 1 else 2
            group = Group((depth - 4) // 6, widths[number - 1], widths[number], stride)
            self.add_module(f"block{number}", group)
        self.bn1 = nn.BatchNorm2d(widths[-1])
        self._finish()

    def _initialise_classifier(self, layer: nn.Linear) -> None:
        nn.init.zeros_(layer.bias)

    def stages(self, x: Tensor) -> list[Tensor]:
        """The stem's raw output and the sums of three groups, before the next norm."""
        maps = [self.conv1(x)]
        for number in (1, 2, 3):
            maps.append(self.get_submodule(f"block{number}")(maps[-1]))
        return maps

    def last(self, x: Tensor) -> Tensor:
        """Norm and ReLU before pooling."""
        return F.relu(self.bn1(x))


register(
    __name__,
    {
        f"cifar_wrn_{depth}_{widen}": (CifarWideResNet, dict(depth=depth, widen=widen))
        for depth in (16, 40)
        for widen in (1, 2)
    },
)
