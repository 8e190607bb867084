"""The faster kernels draw what timm draws, and give its pixels but for rounding."""

import numpy as np
import pytest
import torch

from dccd_timm.data import fast
from dccd_timm.data.decode import decode
from dccd_timm.data.fast import FastViews, decode_pixels
from dccd_timm.data.seeds import seeded
from dccd_timm.data.views import train_views
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded
from tests.data.odd_jpegs import odd_jpegs, photograph

CONFIG = dict(input_size=(3, 96, 96), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic", crop_pct=1.0)


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
    fast_views = FastViews(views.transforms)
    errors = []
    for number in range(12):
        image = photograph(number, mode=mode)
        with seeded(3, number):
            expected = views(image)
            after = torch.rand(1)
        with seeded(3, number):
            got = fast_views(image)
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


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, on one of them
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_jpegs_of_all_sorts_equal_pillow(wanted, monkeypatch, capfd):
    """The pixels of the readable ones, as they are stored and not turned; the others are refused, with a reason."""
    by_pillow = []
    monkeypatch.setattr(fast, "decode", lambda data, mode: by_pillow.append(data) or decode(data, mode))
    files, refused = odd_jpegs(), set()
    for name, data in files.items():
        try:
            expected = np.asarray(decode(data, wanted))
        except OSError:
            refused.add(name)
            with pytest.raises(OSError, match=".+"):
                decode_pixels(data, wanted)
            continue
        rows = decode_pixels(data, wanted).rows.numpy()
        assert np.array_equal(rows, expected.reshape(*expected.shape[:2], -1)), name
    assert len(files) >= 60 and 10 <= len(refused) <= 15
    # Pillow reads what has another mode than RGB, and what libjpeg warns of; the rest it must not
    assert len(files) - len(by_pillow) >= 50 if wanted == "RGB" else len(by_pillow) == len(files)
    assert capfd.readouterr().err == ""


def test_what_pillow_refuses_is_refused():
    jpeg = encoded(photograph(3), "JPEG")
    for data in (b"", b"no image", jpeg[:200], jpeg[: len(jpeg) // 2], jpeg[:-40], None):
        with pytest.raises(OSError):
            decode(data, "RGB")
        with pytest.raises(OSError):
            decode_pixels(data, "RGB")
