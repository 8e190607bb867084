"""The faster kernels draw what timm draws, and give its pixels but for rounding."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dccd_timm.data.decode import decode
from dccd_timm.data.fast import FastViews, decode_pixels
from dccd_timm.data.seeds import seeded
from dccd_timm.data.views import train_views
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded

CONFIG = dict(input_size=(3, 96, 96), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_pct=1.0)


def photograph(seed, width=250, height=180, mode="RGB"):
    """Smooth shapes with edges and grain, in all colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(float) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--color-jitter", "0.9", "--vflip", "0.5"],
        ["--color-jitter", "0"],
        ["--train-interpolation", "bilinear", "--scale", "0.9", "1"],
        ["--train-interpolation", "lanczos"],
        ["--aa", "rand-m9-mstd0.5-inc1"],
        ["--aa", "3a"],
        ["--color-jitter-prob", "0.5", "--gaussian-blur-prob", "0.5"],
        ["--no-prefetcher"],
        ["--train-crop-mode", "rkrc"],
        ["--no-aug"],
        ["--train-crop-pad", "12"],
    ],
)
def test_views_equal_those_on_pillow(flags, mode):
    grey = mode == "L"
    recipe = load_recipe(["--dccd-views", "2", "--kd-distill-type", "none", *flags])
    config = CONFIG | (dict(input_size=(1, 96, 96), mean=(0.5,), std=(0.25,)) if grey else {})
    views = train_views(recipe, config)
    fast = FastViews(views.transforms)
    errors = []
    for number in range(12):
        image = photograph(number, mode=mode)
        with seeded(3, number):
            expected = views(image)
            after = torch.rand(1)
        with seeded(3, number):
            got = fast(image)
            assert torch.equal(after, torch.rand(1))  # the same draws, no more and no fewer
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape and a.dtype == b.dtype
            errors.append((a.float() - b.float()).abs().mean() * (1 if a.dtype == torch.uint8 else 0.25 * 255))
    assert np.mean(errors) < 0.5 and max(errors) < 2  # of 255; the bound that was asked for is 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA"])
def test_decoding_equals_pillow(kind, mode):
    image = photograph(1)
    if (kind == "JPEG" and mode in ("P", "RGBA")) or (kind != "JPEG" and mode == "CMYK"):
        pytest.skip(f"there is no {mode} in {kind}")
    data = encoded(image.convert(mode), kind)
    for wanted in ("RGB", "L"):
        rows = decode_pixels(data, wanted).rows
        expected = np.asarray(decode(data, wanted))
        assert np.array_equal(rows.squeeze(-1).numpy(), expected), (kind, mode, wanted)


def test_jpegs_of_all_sorts_equal_pillow():
    for options in (
        dict(progressive=True),
        dict(subsampling=0),
        dict(subsampling=2),
        dict(quality=30),
        dict(optimize=True),
    ):
        buffer = io.BytesIO()
        photograph(2).save(buffer, "JPEG", **options)
        expected = np.asarray(decode(buffer.getvalue(), "RGB"))
        assert np.array_equal(decode_pixels(buffer.getvalue(), "RGB").rows.numpy(), expected), options
    turned = Image.Exif()
    turned[274] = 6
    buffer = io.BytesIO()
    photograph(2).save(buffer, "JPEG", exif=turned)
    assert decode_pixels(buffer.getvalue(), "RGB").rows.shape == (180, 250, 3)  # as it is stored, as timm has it


def test_what_pillow_refuses_is_refused():
    jpeg = encoded(photograph(3), "JPEG")
    for data in (b"", b"no image", jpeg[:200], jpeg[: len(jpeg) // 2], jpeg[:-40], None):
        with pytest.raises(OSError):
            decode(data, "RGB")
        with pytest.raises(OSError):
            decode_pixels(data, "RGB")
