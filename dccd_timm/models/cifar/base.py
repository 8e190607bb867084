"""What the small networks of the contrastive-distillation benchmark have in common: timm's interface.

Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, section 4 names them; names of weights are
those of that benchmark's public checkpoints, so that they load strictly.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._pretrained import PretrainedCfg
from torch import Tensor, nn
from torch.nn import functional as F

# CIFAR-100's
_MEAN, _STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


class CifarNet(nn.Module):
    """Base of a network for images of 32 pixels: stages, global average, one linear classifier.

    Args:
        head: name of the classifier, as public checkpoints have it.
        widths: channels of each stage's map, the stem's first.
        reductions: pixels of the image by positions of the map, of each stage.
        num_features: channels before the classifier.
        num_classes: 0 for features only.
        drop_rate: dropout before the classifier.
    """

    head: str
    first_conv = "conv1"
    linear_name = ""  # of the linear layer, where it is not ``head``

    def __init__(
        self, widths: Sequence[int], reductions: Sequence[int], num_features: int, num_classes: int, drop_rate: float
    ) -> None:
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features = self.head_hidden_size = num_features
        self.feature_info = [
            dict(num_chs=width, reduction=reduction, module=f"stage{number}")
            for number, (width, reduction) in enumerate(zip(widths, reductions, strict=True))
        ]

    def _finish(self) -> None:
        """Add the classifier and draw initial weights, once all other layers are there."""
        self._set_classifier(self._linear(self.num_classes))
        stem = self.get_submodule(self.first_conv)
        assert isinstance(stem, nn.Conv2d)
        self.in_chans = stem.in_channels  # where timm looks for it
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                self._initialise_convolution(module)
        classifier = self.get_classifier()
        if isinstance(classifier, nn.Linear):
            self._initialise_classifier(classifier)

    def _initialise_convolution(self, layer: nn.Conv2d) -> None:
        """Draw the first weights of a convolution as the benchmark does; a family may differ."""
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def _initialise_classifier(self, layer: nn.Linear) -> None:
        """Likewise of the classifier, which has torch's own here."""

    def _linear(self, num_classes: int) -> nn.Module:
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def _set_classifier(self, layer: nn.Module) -> None:
        setattr(self, self.head, layer)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Map of every stage, [N, C, H, W]."""
        raise NotImplementedError

    def last(self, x: Tensor) -> Tensor:
        """What comes between the last stage's map and pooling."""
        return x

    def forward_features(self, x: Tensor) -> Tensor:
        """Map before pooling, [N, num_features, H, W]."""
        return self.last(self.stages(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [N, K] of :meth:`forward_features`, or with ``pre_logits`` the pooled features."""
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x
        if not pre_logits:
            x = self.get_classifier()(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K] of images [N, C, H, W]."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's: final features and the maps of ``indices``, or the maps alone.

        All stages are computed, whatever ``stop_early`` says; ``norm`` brings the last map to its final form.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        taken, _ = feature_take_indices(len(self.feature_info), indices)
        maps = self.stages(x)
        final = self.last(maps[-1])
        if norm and len(maps) - 1 in taken and final.shape == maps[-1].shape:
            maps[-1] = final
        wanted = [maps[i] for i in taken]
        return wanted if intermediates_only else (final, wanted)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.get_submodule(self.linear_name or self.head)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new head of ``num_classes`` classes."""
        self.num_classes = num_classes
        layer = self._linear(num_classes)
        if isinstance(layer, nn.Linear):
            self._initialise_classifier(layer)
        self._set_classifier(layer.to(next(self.parameters()).device))

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Layers for layer decay: the stem, then each block."""
        blocks = r"^(?:layer|blocks?)\.?(\d+)" if coarse else r"^(?:layer|blocks?)\.?(\d+)(?:\.layer)?\.(\d+)"
        return dict(stem=r"^(?:conv1|bn1)", blocks=[(blocks, None), (r"^(?:conv2|bn2)", (99999,))])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Not supported: these networks are small."""
        assert not enable, "gradient checkpointing is not supported"


def initialise_narrow(layer: nn.Linear) -> None:
    """A classifier's first weights with a standard deviation of 0.01, and no bias."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


def register(module: str, networks: Mapping[str, tuple[type[CifarNet], dict[str, object]]]) -> None:
    """Make ``timm.create_model`` know the networks of ``module``: name -> class and its arguments."""
    cfgs = generate_default_cfgs({f"{name}.untrained": _pretrained_cfg(cls) for name, (cls, _) in networks.items()})
    sys.modules[module].default_cfgs = cfgs  # type: ignore[attr-defined]
    for name, (cls, options) in networks.items():
        build: Callable[..., CifarNet] = cls
        entry = _entry(name, partial(build, **options))
        entry.__module__ = module
        register_model(entry)


def _pretrained_cfg(cls: type[CifarNet]) -> PretrainedCfg:
    return PretrainedCfg(
        url="",
        num_classes=100,
        input_size=(3, 32, 32),
        pool_size=(4, 4),
        crop_pct=1.0,
        interpolation="bilinear",
        mean=_MEAN,
        std=_STD,
        first_conv=cls.first_conv,
        classifier=cls.linear_name or cls.head,
    )


def _entry(name: str, build: Callable[..., CifarNet]) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(build, name, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{name.removeprefix('cifar_')} of the contrastive-distillation benchmark."
    return create
