"""One image -> V independently augmented views, by timm's transforms; and how an image is decoded."""

import contextlib
import hashlib
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import auto_augment, create_transform
from timm.data.transforms import str_to_interp_mode
from torch.utils.data import get_worker_info
from torchvision.transforms import RandomCrop, Resize

from dccd_timm.recipe import Recipe, View, plan_views


class MultiViewTransform:
    """V views of one decoded image, as a tuple of tensors [C, H, W].

    timm's collate function turns such tuples into a view-major batch, so this also serves timm's own loader:
    ``loader.dataset.transform = MultiViewTransform(transform, views=2)``.

    Args:
        transform: one transform for all views, or a sequence with one for each.
        views: number of views; with a sequence it must be its length.

    Raises:
        ValueError: for no views, or another number of transforms than views.
    """

    def __init__(self, transform: Callable[[Any], Any] | Sequence[Callable[[Any], Any]], views: int | None = None):
        if callable(transform):
            transform = (transform,) * (2 if views is None else views)
        self.transforms = tuple(transform)
        if not self.transforms or (views is not None and views != len(self.transforms)):
            raise ValueError(f"{len(self.transforms)} transforms for {views} views: give one each, at least one")

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.transforms)

    def __call__(self, image: Any) -> tuple[Any, ...]:
        """Views of a PIL image."""
        return tuple(transform(image) for transform in self.transforms)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(dict.fromkeys(map(str, self.transforms)))} x {self.views})"


class PaddedCrop(RandomCrop):
    """A crop of the input's size out of the image, resized to that size and with black pixels around it.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. timm has no such crop.

    Args:
        size: height and width of the input.
        padding: pixels on each side.
        interpolation: of images that have another size; timm's word.
    """

    padding: int

    def __init__(self, size: Sequence[int], padding: int, interpolation: str) -> None:
        super().__init__(tuple(size), padding)
        mode = "bilinear" if interpolation == "random" else interpolation
        self.resize = Resize(tuple(size), str_to_interp_mode(mode))

    def forward(self, img: Image.Image) -> Image.Image:
        """The crop."""
        cropped: Image.Image = super().forward(self.resize(img))
        return cropped


def train_views(recipe: Recipe, data_config: dict[str, Any]) -> MultiViewTransform:
    """The views that a worker draws: timm's transform once for each, with its random erasing where workers normalise.

    Near copies are not among them: they are made from finished views, on the device.
    """
    interpolation = recipe.train_interpolation
    if recipe.no_aug or not interpolation:
        interpolation = data_config["interpolation"]
    shared = dict(
        input_size=data_config["input_size"], is_training=True, no_aug=recipe.no_aug,
        train_crop_mode=recipe.train_crop_mode, scale=recipe.scale, ratio=recipe.ratio, hflip=recipe.hflip,
        vflip=recipe.vflip, interpolation=interpolation, mean=data_config["mean"], std=data_config["std"],
        use_prefetcher=not recipe.no_prefetcher,
    )  # fmt: skip
    weak = dict(color_jitter=None)
    strong = dict(
        color_jitter=recipe.color_jitter, color_jitter_prob=recipe.color_jitter_prob,
        grayscale_prob=recipe.grayscale_prob or 0.0, gaussian_blur_prob=recipe.gaussian_blur_prob or 0.0,
        auto_augment=recipe.aa, re_mode=recipe.remode, re_count=recipe.recount,
    )  # fmt: skip
    transforms = [
        create_transform(**shared, **(strong | {"re_prob": recipe.reprob if erased else 0.0} if view.strong else weak))
        for view, erased in zip(drawn_views(recipe), erased_views(recipe), strict=True)
    ]
    for transform in transforms:
        _keep_a_bit(transform)
        if recipe.train_crop_pad and not recipe.no_aug:
            transform.transforms[0] = PaddedCrop(data_config["input_size"][1:], recipe.train_crop_pad, interpolation)
    return MultiViewTransform(transforms)


def drawn_views(recipe: Recipe) -> list[View]:
    """The views that are no copies of others."""
    return [view for view in plan_views(recipe.dccd_view_aug, recipe.dccd_views) if view.near is None]


def erased_views(recipe: Recipe) -> list[bool]:
    """Which of the drawn views random erasing may touch: strong ones, and not the first with ``--resplit``."""
    return [view.strong and not (recipe.resplit and number == 0) for number, view in enumerate(drawn_views(recipe))]


def _keep_a_bit(transform: Any) -> None:
    """Posterize to one bit where timm's increasing policies ask for none, which Pillow >= 13 refuses."""
    for step in getattr(transform, "transforms", []):
        policies = [getattr(step, "ops", None) or [], *(getattr(step, "policy", None) or [])]
        for operation in (op for ops in policies for op in ops):
            if getattr(operation, "aug_fn", None) is auto_augment.posterize:
                operation.aug_fn = _posterize


def _posterize(image: Any, bits_to_keep: int, **kwargs: Any) -> Any:
    return auto_augment.posterize(image, max(1, bits_to_keep), **kwargs)


def eval_view(recipe: Recipe, data_config: dict[str, Any]) -> MultiViewTransform:
    """timm's validation transform, as one view."""
    return MultiViewTransform(
        [
            create_transform(
                input_size=data_config["input_size"],
                is_training=False,
                interpolation=data_config["interpolation"],
                mean=data_config["mean"],
                std=data_config["std"],
                crop_pct=data_config["crop_pct"],
                crop_mode=data_config.get("crop_mode"),
                crop_border_pixels=data_config.get("crop_border_pixels"),
                use_prefetcher=not recipe.no_prefetcher,
            )
        ]
    )


def encoded(image: Any) -> bytes | Image.Image:
    """The bytes of a datasets record, an open file or a path; bytes and PIL images as they are.

    Raises:
        OSError: when there are none.
    """
    if isinstance(image, dict):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, str):
        image = Path(image).read_bytes()
    elif hasattr(image, "read"):
        with image:
            image = image.read()
    if image is None or image == b"":
        raise OSError("no image in this record")
    return image


def decode(image: Any, mode: str) -> Image.Image:
    """A PIL image in ``mode`` from bytes, a datasets record, an open file, a path or a PIL image.

    Raises:
        OSError: when it cannot be decoded.
    """
    data = encoded(image)
    if isinstance(data, Image.Image):
        return data.convert(mode)
    with readable(data) as opened:
        opened.load()
        return opened if opened.mode == mode else opened.convert(mode)


@contextlib.contextmanager
def readable(data: bytes) -> Iterator[Image.Image]:
    """A PIL image, opened and not yet decoded; whatever goes wrong inside becomes an OSError that tells its cause."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            yield opened
    except UnidentifiedImageError as error:
        raise OSError("not an image") from error
    except OSError:
        raise
    except Exception as error:  # PIL's plugins raise all sorts on bytes that are no image
        raise OSError(f"{type(error).__name__}: {error}") from error


def mix(*numbers: int) -> int:
    """One well-mixed 63-bit number from several, the same on every machine."""
    digest = hashlib.blake2b(np.array(numbers, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextlib.contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw augmentations from these numbers, so that they do not depend on workers or on what was drawn before.

    timm's transforms use all three global generators. In a worker nobody else does; in the main process they are put
    back afterwards, that of an accelerator ``device`` too.
    """
    in_worker = get_worker_info() is not None
    states = None if in_worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    accelerator = torch.get_device_module(device) if device is not None and device.type != "cpu" else None
    device_state = accelerator.get_rng_state(device) if accelerator else None
    seed = mix(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if accelerator:
        accelerator.manual_seed(seed)
    try:
        yield
    finally:
        if states:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
        if accelerator:
            accelerator.set_rng_state(device_state, device)
