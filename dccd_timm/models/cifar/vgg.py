"""VGG with BatchNorm for 32 pixels.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, section 2.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from dccd_timm.models.cifar.base import CifarNet, initialise_narrow, register

_WIDTHS = (64, 128, 256, 512, 512)


class CifarVGG(CifarNet):
    """Five blocks of 3x3 convolutions with biases, norms and ReLUs, and max-pooling between them.

    The fourth pooling is left out below 64 pixels, so that 32 pixels end at 4 x 4.

    Args:
        depths: convolutions of each block.
    """

    head = "classifier"
    first_conv = "block0.0"

    def __init__(
        self,
        depths: tuple[int, ...] = (1, 1, 1, 1, 1),
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__(_WIDTHS, (1, 2, 4, 8, 8), 512, num_classes, drop_rate)
        inputs = in_chans
        for number, (depth, width) in enumerate(zip(depths, _WIDTHS, strict=True)):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            self.add_module(f"block{number}", nn.Sequential(*layers[:-1]))  # the last ReLU is applied outside
        self._finish()

    def _initialise_classifier(self, layer: nn.Linear) -> None:
        initialise_narrow(layer)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Five blocks, each after its ReLU."""
        large, maps = x.shape[-1] >= 64, []
        for number in range(5):
            if number and (number < 4 or large):
                x = F.max_pool2d(x, 2)
            x = F.relu(self.get_submodule(f"block{number}")(x))
            maps.append(x)
        return maps


register(
    __name__,
    {
        "cifar_vgg8": (CifarVGG, dict(depths=(1, 1, 1, 1, 1))),
        "cifar_vgg11": (CifarVGG, dict(depths=(1, 1, 2, 2, 2))),
        "cifar_vgg13": (CifarVGG, dict(depths=(2, 2, 2, 2, 2))),
        "cifar_vgg16": (CifarVGG, dict(depths=(2, 2, 3, 3, 3))),
        "cifar_vgg19": (CifarVGG, dict(depths=(2, 2, 4, 4, 4))),
    },
)
