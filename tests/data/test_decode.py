"""Every image that timm reads is decoded as timm decodes it; all others raise OSError."""

import io
import re

import numpy as np
import pytest
import timm.data
from PIL import Image

from dccd_timm.data.decode import decode
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
    """CMYK, palette, 16 bit, grey, alpha and EXIF orientation as timm's reader has them; broken ones are skipped."""
    image = picture(1, 3)
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    rotated = io.BytesIO()
    image.save(rotated, "JPEG", exif=exif)
    deep = io.BytesIO()
    Image.fromarray((np.arange(1600).reshape(40, 40) * 40).astype(np.uint16)).save(deep, "PNG")
    odd = {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"), "palette.png": encoded(image.convert("P")),
        "grey.png": encoded(image.convert("L")), "alpha.png": encoded(image.convert("RGBA")),
        "exif.jpg": rotated.getvalue(), "deep.png": deep.getvalue(),
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
