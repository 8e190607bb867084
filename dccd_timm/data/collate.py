"""Samples become batches; images that could not be read are counted and named, up to a limit."""

import logging
from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import default_collate

from dccd_timm.batch import Batch, Draws
from dccd_timm.data.decode import Sample
from dccd_timm.errors import UserError, printable

_logger = logging.getLogger(__name__)

# Unreadable images that the log names.
_LOGGED = 10


class Collate:
    """Samples to a Batch; checks class indices where the data is read."""

    def __init__(self, num_classes: int | None) -> None:
        self.num_classes = num_classes

    def __call__(self, samples: list[Sample]) -> Batch:
        """A batch of the samples that could be read."""
        skipped = [skip for sample in samples for skip in sample.skipped]
        read = [(sample.views, sample.target, sample.draw) for sample in samples if sample.views is not None]
        if not read:
            return Batch.empty(skipped)
        views, targets, draws = zip(*read, strict=True)
        fatal = None
        if self.num_classes and not all(0 <= t < self.num_classes for t in targets):
            wrong = next(t for t in targets if not 0 <= t < self.num_classes)
            fatal = f"class index {wrong} is outside 0 ... {self.num_classes - 1}: set --num-classes or --class-map"
        # flat, and by default_collate: in a worker it writes into shared memory at once
        flat = default_collate([view for image in views for view in image])
        batch = Batch(flat.unflatten(0, (len(views), -1)), torch.tensor(targets), skipped, fatal)
        if all(draws):
            seeds, epochs = map(torch.tensor, zip(*draws, strict=True))
            batch.draws = Draws(seeds, epochs, sketch(batch.views))
        return batch


def sketch(views: UInt8[Tensor, "B V C H W"] | Float[Tensor, "B V C H W"]) -> UInt8[Tensor, "B V P"]:
    """At most 4 x 4 pixels of each view, on a grid in its middle channel, as bytes."""
    height, width = views.shape[-2:]
    rows, columns = (torch.arange(min(4, size)) * size // min(4, size) + size // 8 for size in (height, width))
    pixels = views[:, :, views.shape[2] // 2][:, :, rows[:, None], columns].flatten(2)
    return pixels if pixels.dtype == torch.uint8 else (32 * pixels + 128).clamp(0, 255).to(torch.uint8)


class SkipCounter:
    """Counts images that could not be read, each once, names the first ones in the log, and stops at a limit.

    An image is known by its name, so the names of a split must differ.

    Args:
        limit: images that may be skipped; None stops at the first.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit, self.images = limit, dict[str, int]()
        self._logged = set[str]()

    @property
    def count(self) -> int:
        """Images skipped so far."""
        return sum(self.images.values())

    @property
    def names(self) -> list[str]:
        """What was skipped, with the reason, in the order in which it was met."""
        return list(self.images)

    def check(self, batch: Batch) -> None:
        """Count what a batch skipped.

        Raises:
            UserError: past the limit, or for a problem that cannot be skipped.
        """
        for raw, count in batch.skipped:
            name = printable(raw)
            if self.limit is None:
                raise UserError(f"unreadable image or shard: {name}; fix it, or skip it with --data-errors skip")
            if name not in self._logged and len(self._logged) < _LOGGED:
                self._logged.add(name)
                _logger.warning("skipped unreadable image %d: %s", self.count + 1, name)
            self.images[name] = count
        if self.limit is not None:
            check_limit(self.images, self.limit)
        if batch.fatal:
            raise UserError(batch.fatal)


def check_limit(skipped: Mapping[str, int], limit: int) -> None:
    """Check what was skipped, by one rank or by all together.

    Raises:
        UserError: when it is more than ``limit`` images.
    """
    if (count := sum(skipped.values())) > limit:
        raise UserError(
            f"{count} images could not be read, more than --max-data-errors {limit}; the first: {next(iter(skipped))}"
        )


def no_image(what: str, first: str) -> str:
    """The message for a whole pass that gave no image; ``first`` is the first that could not be read, or empty."""
    return f"a whole pass over the {what} gave no image" + (
        f"; the first that could not be read: {first}" if first else ""
    )
