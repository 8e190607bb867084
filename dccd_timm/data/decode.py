"""Encoded images and how they are decoded; records of a source and the samples that they become."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dccd_timm.data.seeds import seeded
from dccd_timm.errors import one_line
from dccd_timm.recipe import Images

# What sources give as an image: bytes, a path, a datasets record of both, an open file, a PIL image, or nothing.
Encoded = bytes | str | dict[str, bytes | str | None] | io.BufferedIOBase | Image.Image | None

# PIL registers its decoders at the first open: done here once, and workers share them.
Image.preinit()


def image_mode(images: Images) -> str:
    """PIL mode that images are converted to: grey for one channel, RGB otherwise."""
    return images.input_img_mode or ("L" if images.in_chans == 1 else "RGB")


def encoded(image: Encoded) -> bytes | Image.Image:
    """The bytes of a datasets record, an open file or a path; bytes and PIL images as they are.

    Raises:
        OSError: when there are none.
    """
    if isinstance(image, dict):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, str):
        image = Path(image).read_bytes()
    elif image is not None and not isinstance(image, bytes) and hasattr(image, "read"):
        with image:
            image = image.read()
    if image is None or image == b"":
        raise OSError("no image in this record")
    return image


def decode(image: Encoded, mode: str) -> Image.Image:
    """A PIL image in ``mode`` from bytes, a datasets record, an open file, a path or a PIL image.

    Raises:
        OSError: when it cannot be decoded.
    """
    data = encoded(image)
    if isinstance(data, Image.Image):
        return _converted(data, mode)
    with readable(data) as opened:
        opened.load()
        return opened if opened.mode == mode else _converted(opened, mode)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in ``mode``; grey values of 16 bits and floats are scaled to 8 bits, where PIL would cut them off.

    Raises:
        OSError: for values whose range is not known.
    """
    if mode != image.mode and (image.mode in ("I", "F") or image.mode.startswith("I;16")):
        image = _to_8_bits(image)
    return image.convert(mode)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey values 0 ... 65535 of a 16-bit image and 0 ... 1 of a float image as 0 ... 255; 0 ... 255 stays."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    # older Pillow opens a 16-bit PNG as 32-bit integers
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = (values.astype(np.int64) + 128) // 257
    elif image.mode == "F" and low >= 0 and high <= 1:
        values = np.rint(values * 255)
    elif not (low >= 0 and high <= 255) or (image.mode == "F" and high < 2):  # nor NaN, nor 0 ... 1 with a bit more
        raise OSError(f"grey values {low:g} ... {high:g}: convert it to 8 or 16 bits, or to floats 0 ... 1")
    return Image.fromarray(values.astype(np.uint8))


@contextlib.contextmanager
def readable(data: bytes) -> Iterator[Image.Image]:
    """A PIL image, opened and not yet decoded; whatever goes wrong inside becomes an OSError that names its cause."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            yield opened
    except UnidentifiedImageError as error:
        raise OSError("not an image") from error
    except OSError:
        raise
    except Exception as error:  # PIL's plugins raise many kinds on bytes that are no image
        raise OSError(f"{type(error).__name__}: {error}") from error


@dataclass
class Record:
    """One undecoded image with its class index and its name in messages.

    No two images of a split have the same name: what is skipped is counted by it.
    """

    image: Encoded
    target: int | None
    name: str

    @property
    def nbytes(self) -> int:
        """Size of the undecoded image in bytes, as far as it is in memory."""
        data = self.image.get("bytes") if isinstance(self.image, dict) else self.image
        return len(data) if isinstance(data, bytes) else 0


@dataclass
class Sample:
    """Views [C, H, W] of one image with its class, or None; and what was skipped, with a number of images each.

    ``draw`` is the seed that the views were drawn from, and the epoch in it; None where nothing was drawn.
    """

    views: tuple[Tensor, ...] | None
    target: int
    skipped: list[tuple[str, int]] = field(default_factory=list)
    draw: tuple[int, int] | None = None

    @classmethod
    def skipping(cls, name: str, error: BaseException, images: int = 1) -> Self:
        """The sample that stands for this number of images that cannot be read."""
        return cls(None, -1, [(f"{name} ({one_line(error, 160)})", images)])


class Reader:
    """Turns records into samples: decodes an image once and draws its views.

    Args:
        decode: :func:`decode`, or another function of the same arguments whose result ``transform`` takes.
        transform: from a decoded image to its views [C, H, W].
        mode: PIL mode to decode to.
        seed: augmentations are drawn from it and the image's position; None draws nothing, for evaluation.
        indices: class indices by those of the records, where these differ.
        period: if above 0, epoch e draws the views of epoch e mod ``period``.
    """

    def __init__(
        self,
        decode: Callable[[Encoded, str], object],
        transform: Callable[[Any], tuple[Tensor, ...]],
        mode: str,
        seed: int | None,
        indices: Sequence[int] | None = None,
        period: int = 0,
    ) -> None:
        self.decode, self.transform, self.mode, self.seed, self.indices = decode, transform, mode, seed, indices
        self.period = period

    def sample(self, record: Record, *position: int) -> Sample:
        """The sample of a record at this position: the epoch, and numbers of the image in the split; a record that
        cannot be decoded is skipped."""
        try:
            if record.target is None:
                raise OSError("no class")
            image = self.decode(record.image, self.mode)
        except OSError as error:
            return Sample.skipping(record.name, error)
        target = int(record.target)
        if self.indices is not None and 0 <= target < len(self.indices):
            target = self.indices[target]
        if self.seed is None:
            return Sample(self.transform(image), target)
        epoch, *place = position
        epoch = epoch % self.period if self.period else epoch
        with seeded(self.seed, epoch, *place) as seed:
            return Sample(self.transform(image), target, draw=(seed, epoch))
