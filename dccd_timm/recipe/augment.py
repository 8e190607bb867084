"""How training images are changed, and which form the task loss has."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from dccd_timm.recipe.option import INTERPOLATIONS, NoEffect, Values, option, without

_aug = partial(option, group="Augmentation and regularization")


def _mixes(v: Values) -> bool:
    return v["mixup"] > 0 or v["cutmix"] > 0 or v["cutmix_minmax"] is not None


_NO_MIXING = NoEffect(lambda v: not _mixes(v), "mixup and cutmix are off")
_NO_BCE = without("bce_loss", "bce_loss is off")
_NO_ERASING = NoEffect(lambda v: v["reprob"] == 0, "reprob is 0")
_NO_AUG = NoEffect(lambda v: v["no_aug"], "no_aug switches augmentation off")


def _against_no_aug(name: str, off: object) -> NoEffect:
    """No effect beside no_aug, unless the value says the same."""
    return NoEffect(lambda v: v["no_aug"] and v[name] not in (None, off), "no_aug switches augmentation off")


_NO_JITTER = NoEffect(lambda v: not v["color_jitter"], "color_jitter is 0")
_PADDED = NoEffect(lambda v: v["train_crop_pad"] > 0, "train_crop_pad crops in its own way")


@dataclass(frozen=True)
class Augment:
    """Augmentation, mixing, label smoothing and the task loss's form."""

    no_aug: bool = _aug(False, "no training augmentation", views=True)
    train_crop_mode: Literal["rrc", "rkrc", "rkrr"] | None = _aug(
        None, "rrc, rkrc or rkrr", no_effect=(_NO_AUG, _PADDED), views=True
    )
    train_crop_pad: int = _aug(
        0,
        "if above 0: a crop of the input's size out of the image with so many pixels around it, as for CIFAR",
        low=0,
        no_effect=(_NO_AUG,),
        views=True,
    )
    scale: tuple[float, ...] | None = _aug(
        (0.08, 1.0),
        "area of the random crop",
        count=2,
        no_effect=(_against_no_aug("scale", (1, 1)), _PADDED),
        views=True,
    )
    ratio: tuple[float, ...] | None = _aug(
        (3 / 4, 4 / 3),
        "aspect ratio of the random crop",
        count=2,
        no_effect=(_against_no_aug("ratio", (1, 1)), _PADDED),
        views=True,
    )
    hflip: float = _aug(
        0.5, "probability of a horizontal flip", low=0, high=1, no_effect=(_against_no_aug("hflip", 0),), views=True
    )
    vflip: float = _aug(0.0, "probability of a vertical flip", low=0, high=1, no_effect=(_NO_AUG,), views=True)
    color_jitter: float | None = _aug(
        0.4, "strength of colour jitter", no_effect=(_against_no_aug("color_jitter", 0),), views=True
    )
    color_jitter_prob: float | None = _aug(
        None, "probability of colour jitter", low=0, high=1, no_effect=(_NO_AUG, _NO_JITTER), views=True
    )
    grayscale_prob: float | None = _aug(
        None, "probability of grey images", low=0, high=1, no_effect=(_NO_AUG,), views=True
    )
    gaussian_blur_prob: float | None = _aug(
        None, "probability of blur", low=0, high=1, no_effect=(_NO_AUG,), views=True
    )
    aa: str | None = _aug(None, "auto-augment policy, e.g. rand-m9-mstd0.5-inc1, 3a", no_effect=(_NO_AUG,), views=True)
    bce_loss: bool = _aug(False, "binary cross-entropy as task loss")
    bce_sum: bool = _aug(False, "sum the binary cross-entropy over classes", no_effect=(_NO_BCE,))
    bce_target_thresh: float | None = _aug(None, "binarise soft targets above this value", no_effect=(_NO_BCE,))
    bce_pos_weight: float | None = _aug(None, "weight of positives in the binary cross-entropy", no_effect=(_NO_BCE,))
    reprob: float = _aug(0.0, "probability of random erasing", low=0, high=1, no_effect=(_NO_AUG,), views=True)
    remode: Literal["const", "rand", "pixel"] = _aug(
        "pixel", "fill of the erased box", no_effect=(_NO_ERASING,), views=True
    )
    recount: int = _aug(1, "boxes to erase", low=1, no_effect=(_NO_ERASING,), views=True)
    resplit: bool = _aug(False, "leave the first view of each image unerased", no_effect=(_NO_ERASING,), views=True)
    mixup: float = _aug(0.0, "mixup alpha; on if above 0", low=0)
    cutmix: float = _aug(0.0, "cutmix alpha; on if above 0", low=0)
    cutmix_minmax: tuple[float, ...] | None = _aug(None, "least and largest cutmix box", count=2)
    mixup_prob: float = _aug(1.0, "probability of mixing a batch", low=0, high=1, no_effect=(_NO_MIXING,))
    mixup_switch_prob: float = _aug(
        0.5, "probability of cutmix when both are on", low=0, high=1, no_effect=(_NO_MIXING,)
    )
    mixup_mode: Literal["batch", "pair", "elem"] = _aug(
        "batch", "mix per batch, pair or element", no_effect=(_NO_MIXING,)
    )
    mixup_off_epoch: int = _aug(0, "no mixing from this epoch on, if above 0", low=0, no_effect=(_NO_MIXING,))
    smoothing: float = _aug(0.1, "label smoothing", low=0, high=1)
    train_interpolation: str = _aug(
        "random", "resize interpolation of training", choices=("", "random", *INTERPOLATIONS), views=True
    )

    @property
    def mixes(self) -> bool:
        """Whether the images of a batch are mixed, so that targets are soft."""
        return _mixes(vars(self))
