"""timm's training transforms on torch's uint8 kernels: the same draws and, but for rounding, the same pixels, faster.

Only the steps that cost are replaced: crop with resize, flips and colour jitter. All others, auto-augment policies
among them, get the Pillow image that they expect.
"""

import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from PIL import Image
from simplejpeg import decode_jpeg
from timm.data.transforms import MaybePILToTensor, RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import ColorJitter, InterpolationMode, RandomHorizontalFlip, RandomVerticalFlip

from dccd_timm.data.decode import Encoded, decode, encoded, readable
from dccd_timm.data.views import MultiViewTransform, PaddedCrop, Pixels

_MODES = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.BICUBIC: "bicubic"}

Rows = UInt8[Tensor, "height width channels"]
Planes = UInt8[Tensor, "channels height width"]
Cropped = UInt8[Tensor, "channels crop_height crop_width"]
Step = Callable[[Any], Any]  # of a transform: from an image or pixels to one of both


class DecodedImage(NamedTuple):
    """A decoded image: something of its size, and its pixels [H, W, C]."""

    image: Image.Image
    rows: Rows


def decode_pixels(data: Encoded, mode: str) -> DecodedImage:
    """As :func:`dccd_timm.data.decode.decode`, for :class:`FastViews`; RGB JPEGs by simplejpeg, which gives the same.

    Raises:
        OSError: when it cannot be decoded.
    """
    data = encoded(data)
    if isinstance(data, bytes) and mode == "RGB":
        with readable(data) as opened:
            if opened.format == "JPEG" and opened.mode == "RGB":
                # it refuses all that libjpeg warns of; Pillow may still read it, or say why not
                with contextlib.suppress(ValueError):
                    return DecodedImage(opened, torch.from_numpy(decode_jpeg(data)))
    image = decode(data, mode)
    return DecodedImage(image, _rows(image))


def _rows(image: Image.Image) -> Rows:
    return torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)


class FastViews(MultiViewTransform):
    """Views of one image as timm's transforms draw them from Pillow images: same draws, faster kernels."""

    def __init__(self, transforms: Sequence[Callable[[Image.Image], Pixels]]) -> None:
        super().__init__(transforms)
        self.fast = [_fast_view(transform) for transform in self.transforms]

    def __call__(self, image: Image.Image | DecodedImage) -> tuple[Pixels, ...]:
        """Views [C, H, W] of a PIL image, or of what :func:`decode_pixels` gave."""
        decoded = image if isinstance(image, DecodedImage) else DecodedImage(image, _rows(image))
        return tuple(view(decoded) for view in self.fast)


class _FastView:
    """One view: a crop of all pixels, then steps on what it gives; or a transform of timm's from the Pillow image."""

    def __init__(self, crop: "_Crop | None", steps: list[Step]) -> None:
        self.crop, self.steps = crop, steps

    def __call__(self, decoded: DecodedImage) -> Pixels:
        value = self.crop(*decoded) if self.crop else decoded.image
        for step in self.steps:
            value = step(value)
        assert isinstance(value, Tensor)
        return value


class _Crop(ABC):
    """A crop of all pixels to the size of the input."""

    @abstractmethod
    def __call__(self, image: Image.Image, rows: Rows) -> Cropped: ...


class _ResizedCrop(_Crop):
    """Random crop and resize."""

    def __init__(self, step: RandomResizedCropAndInterpolation) -> None:
        self.step = step

    def __call__(self, image: Image.Image, rows: Rows) -> Cropped:
        top, left, height, width = self.step.get_params(image, self.step.scale, self.step.ratio)
        modes = self.step.interpolation
        mode = random.choice(modes) if isinstance(modes, (tuple, list)) else modes
        # a contiguous [1, H, W, C] seen as [1, C, H, W]: channels-last, for which torch has its fast kernels
        crop = rows[top : top + height, left : left + width].contiguous().permute(2, 0, 1)[None]
        return F.interpolate(crop, size=self.step.size, mode=_MODES[mode], antialias=True)[0].contiguous()


class _PaddedCrop(_Crop):
    """Crop out of the padded image."""

    def __init__(self, step: PaddedCrop) -> None:
        self.step = step

    def __call__(self, image: Image.Image, rows: Rows) -> Cropped:
        height, width = self.step.size
        if rows.shape[:2] != (height, width):
            rows = _rows(self.step.resize(image))
        padded = F.pad(rows.permute(2, 0, 1), (self.step.padding,) * 4)
        top, left, _, _ = self.step.get_params(padded, (height, width))
        return padded[:, top : top + height, left : left + width].contiguous()


class _Flip:
    """Random flip."""

    def __init__(self, probability: float, axis: int) -> None:
        self.probability, self.axis = probability, axis

    def __call__(self, pixels: Planes) -> Planes:
        return pixels.flip(self.axis) if torch.rand(1) < self.probability else pixels


class _Jitter:
    """Brightness, contrast and saturation in whole numbers of 16 bits, each rounded down and cut off as in Pillow."""

    def __init__(self, step: ColorJitter) -> None:
        self.step = step

    def __call__(self, pixels: Planes) -> Planes:
        step = self.step
        order, *factors = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
        colour = len(pixels) == 3
        values = pixels.short()
        for name in order.tolist():
            factor = factors[name]
            if factor is None or (name == 2 and not colour):
                continue
            if name == 0:
                _scale_around_(values, 0, factor)
            else:  # from the mean grey, or from each pixel's own
                grey = _grey(values) if colour else values
                _scale_around_(values, int(grey.float().mean() + 0.5) if name == 1 else grey, factor)
        return values.to(torch.uint8)


def _scale_around_(
    values: Int16[Tensor, "channels height width"], middle: Int16[Tensor, "..."] | int, factor: float
) -> None:
    """middle + factor * (values - middle), cut off at 0 and 255, in place."""
    change = factor - 1.0
    # as many binary digits of the factor as fit into 16 bits with a difference of 255
    bits = 8
    while abs(change) * 255 * 2**bits > 32767:
        bits -= 1
    moved = (values - middle).mul_(round(change * 2**bits)).bitwise_right_shift_(bits)
    values.add_(moved).clamp_(0, 255)


def _grey(values: Int16[Tensor, "3 height width"]) -> Int16[Tensor, "height width"]:
    """Pillow's grey, to within 1."""
    red, green, blue = values.unbind()
    return (red * 38).add_(green, alpha=75).add_(blue, alpha=15).add_(64).bitwise_right_shift_(7)


def _fast_view(transform: Callable[[Image.Image], Pixels]) -> _FastView:
    """The steps of a Compose, the known ones replaced from the crop up to the first unknown one."""
    steps: list[Step] = list(getattr(transform, "transforms", [transform]))
    crop = _fast_crop(steps[0]) if steps else None
    if crop is None:
        return _FastView(None, steps)
    fast: list[Step] = []
    for number, step in enumerate(steps[1:], start=1):
        known = _fast_step(step)
        if known is None:  # converting back and forth would cost more than it saves
            return _FastView(crop, [*fast, _to_pillow, *steps[number:]])
        fast.append(known)
    return _FastView(crop, fast)


# exact types in both: a subclass may do something else
def _fast_crop(step: Step) -> _Crop | None:
    if type(step) is PaddedCrop:
        return _PaddedCrop(step)
    if type(step) is RandomResizedCropAndInterpolation:
        modes = step.interpolation if isinstance(step.interpolation, (tuple, list)) else (step.interpolation,)
        return _ResizedCrop(step) if all(mode in _MODES for mode in modes) else None
    return None


def _fast_step(step: Step) -> Callable[[Planes], Planes] | None:
    if type(step) is RandomHorizontalFlip:
        return _Flip(step.p, axis=-1)
    if type(step) is RandomVerticalFlip:
        return _Flip(step.p, axis=-2)
    if type(step) is ColorJitter and step.hue is None:
        return _Jitter(step)
    return _unchanged if type(step) is MaybePILToTensor else None


def _unchanged(pixels: Planes) -> Planes:
    """What would make a tensor of an image: it is one."""
    return pixels


def _to_pillow(pixels: Planes) -> Image.Image:
    values = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
