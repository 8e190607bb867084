"""JPEGs as collections of photographs have them: every kind that libjpeg knows, marked in odd ways, and broken."""

import io

import numpy as np
from PIL import Image, ImageCms

SIZES = ((1, 1), (2, 3), (7, 5), (8, 8), (16, 16), (17, 33), (1, 300), (300, 1), (251, 181), (640, 427))
# marker bytes of JPEG's segments
APP0, APP1, APP11, APP14 = 0xE0, 0xE1, 0xEB, 0xEE
FRAME, PROGRESSIVE_FRAME, SCAN, QUANTISATION, HUFFMAN = 0xC0, 0xC2, 0xDA, 0xDB, 0xC4


def photograph(seed, width=250, height=180, mode="RGB"):
    """Smooth shapes with edges and grain, in all colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(float) + rng.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 255, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def odd_jpegs():
    """Bytes by what they are."""
    return _of_all_kinds() | _with_odd_markers() | _broken()


def _jpeg(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _of_all_kinds():
    rgb, odd = photograph(1), photograph(3, 251, 181)
    grey, cmyk = rgb.convert("L"), _jpeg(rgb.convert("CMYK"))
    sizes = {f"size {w}x{h}": _jpeg(photograph(2, 300, 300).resize((w, h))) for w, h in SIZES}
    qualities = {f"quality {quality}": _jpeg(rgb, quality=quality) for quality in (1, 30, 95, 100)}
    sampled = {f"subsampling {s}": _jpeg(odd, subsampling=s) for s in (0, 1, 2)}
    progressive = {f"progressive {s}": _jpeg(odd, subsampling=s, progressive=True) for s in (0, 1, 2)}
    return {
        **sizes, **qualities, **sampled, **progressive,
        "optimised": _jpeg(rgb, optimize=True),
        "restarts": _jpeg(rgb, restart_marker_blocks=3),
        "restart rows": _jpeg(rgb, restart_marker_rows=1),
        "stored as RGB": _jpeg(rgb, keep_rgb=True),
        "grey": _jpeg(grey),
        "grey, odd size": _jpeg(photograph(4, 33, 17, "L")),
        "grey, progressive": _jpeg(grey, progressive=True),
        "CMYK": cmyk,
        "CMYK without Adobe's marker": _without(cmyk, APP14),
        "YCCK": _adobe(cmyk, 2),
        "two pictures": _jpeg(rgb, "MPO", save_all=True, append_images=[photograph(5)]),
    }  # fmt: skip


def _with_odd_markers():
    rgb = photograph(1)
    plain = _jpeg(rgb)
    bare = _without(plain, APP0)
    turned = {f"orientation {n}": _jpeg(rgb, exif=_orientation(n)) for n in range(1, 9)}
    marked = {f"Adobe transform {n}": _adobe(bare, n) for n in (0, 1, 2)}
    tails = {"zeros": bytes(100), "text": b"tail" * 30, "a JPEG": plain, "a line feed": b"\n", "fill": b"\xff" * 9}
    return {
        **turned, **marked,
        "Adobe transform 0 and JFIF": _adobe(plain, 0),
        "no JFIF": bare,
        "components R, G, B": _named(bare, b"RGB"),
        "components 0, 1, 2": _named(bare, bytes(range(3))),
        "components R, G, B and JFIF": _named(plain, b"RGB"),
        "broken EXIF": _inserted(plain, APP1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "comment": _jpeg(rgb, comment=b"x" * 500),
        "colour profile": _jpeg(rgb, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        "resolution": _jpeg(rgb, dpi=(300, 72)),
        "unknown segment": _inserted(plain, APP11, b"JP" + bytes(999)),
        "fill bytes": plain[:2] + b"\xff\xff\xff" + plain[2:],
        **{f"followed by {name}": plain + tail for name, tail in tails.items()},
    }  # fmt: skip


def _broken():
    rgb = photograph(1)
    plain, progressive = _jpeg(rgb), _jpeg(rgb, progressive=True)
    restarts, scan = _jpeg(rgb, restart_marker_blocks=3), _scan(plain)
    ends = {"a segment": 100, "the scan": scan, "half": len(plain) // 2, "-40": -40, "-2": -2, "-1": -1}
    return {
        "after a line feed": b"\n" + plain,
        **{f"cut at {name}": plain[:end] for name, end in ends.items()},
        "progressive, cut": progressive[: len(progressive) // 2],
        "progressive without an end": progressive[:-2],
        **{f"flipped bits {n}": _flipped(plain, n) for n in range(6)},
        "flipped bits, restarts": _flipped(restarts, 9),
        "flipped bits, progressive": _flipped(progressive, 10),
        "no quantisation": _without(plain, QUANTISATION),
        "no Huffman tables": _without(plain, HUFFMAN),
        "a start in the scan": plain[: scan + 2000] + b"\xff\xd8\xff\xe0" + plain[scan + 2000 :],
        "taller than its data": _with_height(plain, 400),
        "lower than its data": _with_height(plain, 100),
    }  # fmt: skip


def _segments(data):
    """Start, end and marker of each segment up to the scan's."""
    at, marker = 2, 0
    while marker != SCAN:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield at, end, marker
        at = end


def _scan(data):
    """Where the compressed pixels begin."""
    return list(_segments(data))[-1][1]


def _without(data, *markers):
    for start, end, marker in reversed(list(_segments(data))):
        if marker in markers:
            data = data[:start] + data[end:]
    return data


def _inserted(data, marker, content):
    return data[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


def _adobe(data, transform):
    """With Adobe's marker, which says how colours are stored: 0 as they are, 1 as YCbCr, 2 as YCCK."""
    return _inserted(_without(data, APP14), APP14, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform]))


def _named(data, components):
    """With other numbers of the components: libjpeg takes R, G, B for colours as they are."""
    changed = bytearray(data)
    for start, _, marker in _segments(data):
        first, each = {FRAME: (10, 3), PROGRESSIVE_FRAME: (10, 3), SCAN: (5, 2)}.get(marker, (0, 0))
        for number, component in enumerate(components if first else ()):
            changed[start + first + each * number] = component
    return bytes(changed)


def _with_height(data, height):
    start = next(start for start, _, marker in _segments(data) if marker == FRAME)
    return data[: start + 5] + height.to_bytes(2, "big") + data[start + 7 :]


def _flipped(data, seed, count=5):
    changed, rng = bytearray(data), np.random.default_rng(seed)
    for at in rng.integers(_scan(data), len(data) - 2, count):
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def _orientation(number):
    exif = Image.Exif()
    exif[274] = number
    return exif
