"""What a model says of its images, as timm's ``resolve_data_config`` gives it."""

from typing import NotRequired, TypedDict


class DataConfig(TypedDict):
    """Size [C, H, W], normalisation in [0, 1] pixel units, interpolation and centre crop of a model's images."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    crop_border_pixels: NotRequired[int | None]
