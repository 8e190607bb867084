"""Every image that timm reads is decoded as timm decodes it; all others raise OSError."""

import io
import re

import numpy as np
import pytest
import timm.data
from PIL import Image

from dccd_timm.data.decode import decode
from dccd_timm.data.fast import decode_pixels
from tests.conftest import encoded, picture


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_pil_mode_is_decoded(mode, wanted):
    source = picture(0, 0, channels=1 if mode == "I;16" else 3)
    image = Image.fromarray(np.asarray(source, dtype=np.uint16) * 200) if mode == "I;16" else source.convert(mode)
    data = encoded(image, {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG"))
    assert decode(data, wanted).mode == wanted


@pytest.mark.parametrize("data", [b"", b"not an image", None, {"bytes": None, "path": "/nowhere.png"}])
def test_what_cannot_be_decoded_raises_oserror(data):
    with pytest.raises(OSError, match=".+"):
        decode(data, "RGB")
    with pytest.raises(OSError, match=".+"):
        decode(encoded(picture(0, 0, size=200), "JPEG")[:800], "RGB")


def test_odd_images_are_read_as_timm_reads_them(tmp_path):
    """CMYK, palette, grey, alpha and EXIF orientation as timm's reader has them; broken ones are skipped."""
    image = picture(1, 3)
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    rotated = io.BytesIO()
    image.save(rotated, "JPEG", exif=exif)
    odd = {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"), "palette.png": encoded(image.convert("P")),
        "grey.png": encoded(image.convert("L")), "alpha.png": encoded(image.convert("RGBA")),
        "exif.jpg": rotated.getvalue(),
    }  # fmt: skip
    for name, data in odd.items():
        path = tmp_path / "images" / "a" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    reference = timm.data.ImageDataset(str(tmp_path / "images"))
    for index in range(len(odd)):
        name = reference.filename(index, basename=True)
        assert np.array_equal(np.asarray(decode(odd[name], "RGB")), np.asarray(reference[index][0])), name
    jpeg = encoded(image, "JPEG")
    for broken in (b"", None, {"bytes": None, "path": None}, jpeg[:-300], b"GIF89a", b"\xff\xd8\xff" + bytes(100)):
        with pytest.raises(OSError) as info:
            decode(broken, "RGB")
        assert not re.search("0x[0-9a-f]{6}", str(info.value))  # a name that changes would be counted anew each epoch


RAMP = np.linspace(0, 1, 1600).reshape(40, 40)


@pytest.mark.parametrize("wanted", ["RGB", "L"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
    ],
    ids=["png16", "tiff16", "float to 1", "float to 255", "int32 to 255"],
)
def test_grey_values_of_16_bits_and_floats_are_scaled(values, kind, wanted):
    """timm cuts them off at 255: a 16-bit picture is white, and one of floats 0 ... 1 is black."""
    picture = Image.fromarray(values)
    for image in (encoded(picture, kind), picture):
        found = np.asarray(decode(image, wanted)).reshape(40, 40, -1)
        assert np.abs(found - 255 * RAMP[..., None]).max() <= 1 and found.min() == 0 and found.max() == 255
    assert np.array_equal(found, np.asarray(decode_pixels(encoded(picture, kind), wanted).rows))


@pytest.mark.parametrize(
    "values", [RAMP * 4000, RAMP - 0.5, RAMP * np.nan, RAMP * 1.01, (RAMP * 65535).astype(np.int32)]
)
def test_grey_values_of_no_known_range_are_not_read(values):
    data = encoded(Image.fromarray(values if values.dtype == np.int32 else values.astype(np.float32)), "TIFF")
    with pytest.raises(OSError, match=r"grey values \S+ ... \S+: convert it to 8 or 16 bits, or to floats 0 ... 1"):
        decode(data, "RGB")
