"""One image -> V independently augmented views, by timm's transforms."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float, UInt8
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.transforms import str_to_interp_mode
from torch import Tensor
from torchvision.transforms import Compose, RandomCrop, Resize

from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Images, Recipe, View, plan_views
from dccd_timm.recipe.data_config import DataConfig

# One view: pixels, or normalised where the workers do that.
Pixels = UInt8[Tensor, "channels height width"] | Float[Tensor, "channels height width"]


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

    def __init__(
        self,
        transform: Callable[[Image.Image], Pixels] | Sequence[Callable[[Image.Image], Pixels]],
        views: int | None = None,
    ) -> None:
        if callable(transform):
            transform = (transform,) * (2 if views is None else views)
        self.transforms = tuple(transform)
        if not self.transforms or (views is not None and views != len(self.transforms)):
            raise ValueError(f"{len(self.transforms)} transforms for {views} views: give one each, at least one")

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.transforms)

    def __call__(self, image: Image.Image) -> tuple[Pixels, ...]:
        """Views [C, H, W] of a PIL image."""
        return tuple(transform(image) for transform in self.transforms)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(dict.fromkeys(map(str, self.transforms)))} x {self.views})"


class PaddedCrop(RandomCrop):
    """A crop of the input's size out of the image, resized to that size and with black pixels around it.

    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2. timm has no such crop.

    Args:
        size: height and width of the input.
        padding: pixels on each side.
        interpolation: of images that have another size; timm's name for it.
    """

    padding: int

    def __init__(self, size: Sequence[int], padding: int, interpolation: str) -> None:
        super().__init__(tuple(size), padding)  # type: ignore[no-untyped-call]
        mode = "bilinear" if interpolation == "random" else interpolation
        self.resize = Resize(tuple(size), str_to_interp_mode(mode))

    def forward(self, img: Image.Image) -> Image.Image:
        """The crop."""
        cropped: Image.Image = super().forward(self.resize(img))  # type: ignore[no-untyped-call]
        return cropped


def train_views(recipe: Recipe, data_config: DataConfig) -> MultiViewTransform:
    """The views that a worker draws: timm's transform once for each, with its random erasing where workers normalise.

    Near copies are not among them: they are made from finished views, on the device.
    """
    interpolation = recipe.train_interpolation
    if recipe.no_aug or not interpolation:
        interpolation = data_config["interpolation"]
    shared: dict[str, Any] = dict(
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
    try:
        transforms = [
            create_transform(
                **shared, **(strong | {"re_prob": recipe.reprob if erased else 0.0} if view.strong else weak)
            )
            for view, erased in zip(drawn_views(recipe), erased_views(recipe), strict=True)
        ]
    except (AssertionError, ValueError, KeyError, TypeError, IndexError) as error:
        if not recipe.aa:
            raise
        raise UserError(f"--aa {recipe.aa}: {one_line(error)}; give e.g. rand-m9-mstd0.5-inc1, augmix or 3a") from error
    for transform in transforms:
        _posterize_to_one_bit(transform)
        if recipe.train_crop_pad and not recipe.no_aug:
            transform.transforms[0] = PaddedCrop(data_config["input_size"][1:], recipe.train_crop_pad, interpolation)
    return MultiViewTransform(transforms)


def drawn_views(recipe: Recipe) -> list[View]:
    """The views that are no copies of others."""
    return [view for view in plan_views(recipe.dccd_view_aug, recipe.dccd_views) if view.near is None]


def erased_views(recipe: Recipe) -> list[bool]:
    """Which of the drawn views random erasing may touch: strong ones, and not the first with ``--resplit``."""
    return [view.strong and not (recipe.resplit and number == 0) for number, view in enumerate(drawn_views(recipe))]


def _posterize_to_one_bit(transform: Compose) -> None:
    """Posterize to one bit where timm's increasing policies ask for none, which Pillow >= 13 refuses."""
    for step in transform.transforms:
        policies = [getattr(step, "ops", None) or [], *(getattr(step, "policy", None) or [])]
        for operation in (op for ops in policies for op in ops):
            if getattr(operation, "aug_fn", None) is auto_augment.posterize:
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits_to_keep: int, **kwargs: object) -> Image.Image:
    posterized: Image.Image = auto_augment.posterize(image, max(1, bits_to_keep), **kwargs)
    return posterized


def eval_view(images: Images, data_config: DataConfig) -> MultiViewTransform:
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
                use_prefetcher=not images.no_prefetcher,
            )
        ]
    )
