"""timm's training transforms on torch's uint8 kernels: the same draws and, but for rounding, the same pixels, faster.

Only the steps that cost are replaced: crop with resize, flips and colour jitter. All others, auto-augment policies
among them, get the Pillow image that they expect.
"""

import contextlib
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import MaybePILToTensor, RandomResizedCropAndInterpolation
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import decode_jpeg
from torchvision.transforms import ColorJitter, InterpolationMode, RandomHorizontalFlip, RandomVerticalFlip

from dccd_timm.data.views import MultiViewTransform, PaddedCrop, decode, encoded, readable

# The bytes of a record are read-only, and nobody writes to them.
warnings.filterwarnings("ignore", message="The given buffer is not writable")
_MODES = {InterpolationMode.BILINEAR: "bilinear", InterpolationMode.BICUBIC: "bicubic"}


class Pixels(NamedTuple):
    """A decoded image: something of its size, and its pixels [H, W, C]."""

    image: Image.Image
    rows: Tensor


def decode_pixels(data: Any, mode: str) -> Pixels:
    """As :func:`dccd_timm.data.views.decode`, for :class:`FastViews`; RGB JPEGs by torchvision, which gives the same.

    Raises:
        OSError: when it cannot be decoded.
    """
    data = encoded(data)
    if isinstance(data, bytes) and mode == "RGB":
        with readable(data) as opened:
            if opened.format == "JPEG" and opened.mode == "RGB":
                # what libjpeg balks at, Pillow may still read, or say why not
                with contextlib.suppress(RuntimeError):
                    return Pixels(opened, decode_jpeg(torch.frombuffer(data, dtype=torch.uint8)).permute(1, 2, 0))
    image = decode(data, mode)
    return Pixels(image, _rows(image))


def _rows(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).reshape(image.height, image.width, -1)


class FastViews(MultiViewTransform):
    """Views of one image as timm's transforms draw them from Pillow images: same draws, faster kernels."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        super().__init__(transforms)
        self.steps = [_faster(transform) for transform in self.transforms]

    def __call__(self, image: "Image.Image | Pixels") -> tuple[Tensor, ...]:
        """Views of a PIL image, or of what :func:`decode_pixels` gave."""
        pixels = image if isinstance(image, Pixels) else Pixels(image, _rows(image))
        return tuple(self._view(steps, *pixels) for steps in self.steps)

    def _view(self, steps: list[Any], image: Any, rows: Tensor) -> Any:
        value: Any = image
        for step in steps:
            if isinstance(step, _Crop):
                value = step(image, rows)
            else:
                value = step(value)
        return value


class _Step:
    """A step on uint8 pixels [C, H, W]."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def __call__(self, pixels: Tensor) -> Tensor:
        raise NotImplementedError


class _Crop(_Step):
    """Random crop and resize, from all pixels as rows [H, W, C]."""

    def __call__(self, image: Image.Image, rows: Tensor) -> Tensor:  # type: ignore[override]
        top, left, height, width = self.step.get_params(image, self.step.scale, self.step.ratio)
        modes = self.step.interpolation
        mode = random.choice(modes) if isinstance(modes, (tuple, list)) else modes
        # a contiguous [1, H, W, C] seen as [1, C, H, W]: channels-last, for which torch has its fast kernels
        crop = rows[top : top + height, left : left + width].contiguous().permute(2, 0, 1)[None]
        return F.interpolate(crop, size=self.step.size, mode=_MODES[mode], antialias=True)[0].contiguous()


class _PaddedCrop(_Crop):
    """Crop out of the padded image."""

    def __call__(self, image: Image.Image, rows: Tensor) -> Tensor:  # type: ignore[override]
        height, width = self.step.size
        if rows.shape[:2] != (height, width):
            rows = _rows(self.step.resize(image))
        padded = F.pad(rows.permute(2, 0, 1), (self.step.padding,) * 4)
        top, left, _, _ = self.step.get_params(padded, (height, width))
        return padded[:, top : top + height, left : left + width].contiguous()


class _Flip(_Step):
    """Random flip."""

    def __call__(self, pixels: Tensor) -> Tensor:
        axis = -1 if isinstance(self.step, RandomHorizontalFlip) else -2
        return pixels.flip(axis) if torch.rand(1) < self.step.p else pixels


class _Jitter(_Step):
    """Brightness, contrast and saturation in whole numbers of 16 bits, each rounded down and cut off as in Pillow."""

    def __call__(self, pixels: Tensor) -> Tensor:
        step = self.step
        order, *factors = step.get_params(step.brightness, step.contrast, step.saturation, step.hue)
        colour = len(pixels) == 3
        values = pixels.short()
        for name in order.tolist():
            factor = factors[name]
            if factor is None or (name == 2 and not colour):
                continue
            if name == 0:
                _away_(values, 0, factor)
            else:  # from the mean grey, or from each pixel's own
                grey = _grey(values) if colour else values
                _away_(values, int(grey.float().mean() + 0.5) if name == 1 else grey, factor)
        return values.to(torch.uint8)


def _away_(values: Tensor, middle: Tensor | int, factor: float) -> None:
    """middle + factor * (values - middle), cut off at 0 and 255, in place; int16 [C, H, W]."""
    change = factor - 1.0
    # as many binary places of the factor as 255 of them leave room for
    bits = 8
    while abs(change) * 255 * 2**bits > 32767:
        bits -= 1
    moved = (values - middle).mul_(round(change * 2**bits)).bitwise_right_shift_(bits)
    values.add_(moved).clamp_(0, 255)


def _grey(values: Tensor) -> Tensor:
    """Pillow's grey of int16 pixels [3, H, W], to within 1: [H, W]."""
    red, green, blue = values
    return (red * 38).add_(green, alpha=75).add_(blue, alpha=15).add_(64).bitwise_right_shift_(7)


def _faster(transform: Any) -> list[Any]:
    """The steps of a Compose, the known ones replaced from the crop up to the first unknown one."""
    steps = list(getattr(transform, "transforms", [transform]))
    if steps and type(steps[0]) is PaddedCrop:
        fast: list[Any] = [_PaddedCrop(steps[0])]
    elif steps and _is_known_crop(steps[0]):
        fast = [_Crop(steps[0])]
    else:
        return steps
    for number, step in enumerate(steps[1:], start=1):
        known = _known(step)
        if known is None:  # to and fro between tensors and images would cost more than it saves
            return [*fast, _pillow, *steps[number:]]
        fast.append(known)
    return fast


def _is_known_crop(step: Any) -> bool:
    if type(step) is not RandomResizedCropAndInterpolation:
        return False
    modes = step.interpolation if isinstance(step.interpolation, (tuple, list)) else (step.interpolation,)
    return all(mode in _MODES for mode in modes)


def _known(step: Any) -> _Step | None:
    # exact types: a subclass may do something else
    if type(step) in (RandomHorizontalFlip, RandomVerticalFlip):
        return _Flip(step)
    if type(step) is ColorJitter and step.hue is None:
        return _Jitter(step)
    return _Same(step) if type(step) is MaybePILToTensor else None


class _Same(_Step):
    """What would make a tensor of an image: it is one."""

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels


def _pillow(pixels: Tensor) -> Image.Image:
    values = pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
