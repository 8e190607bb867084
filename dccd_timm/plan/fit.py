"""Which batch fits into a GPU's memory, by what steps of ghosts take."""

from collections.abc import Callable
from dataclasses import dataclass

# What is left of a GPU's memory for tensors: its context, libraries and workspaces, then fragmentation, take the rest.
_CONTEXT = 2**30
_USABLE = 0.9


@dataclass(frozen=True)
class Batch:
    """A batch size of one rank, the batches of an update, and the bytes that it takes."""

    size: int
    accumulated: int
    memory: int


def usable(memory: int) -> int:
    """The bytes of a GPU with so much ``memory`` that tensors can be expected to get."""
    return int((memory - _CONTEXT) * _USABLE)


def largest_batch(memory_of: Callable[[int, int], int], size: int, accumulated: int, limit: int) -> int:
    """The largest even batch size within ``limit`` bytes, supposing that each image takes the same; 0 for none.

    ``memory_of`` gives the bytes for a batch size and the batches of an update.
    """
    per_image, rest = _line(memory_of, size, accumulated)
    return max(0, int((limit - rest) / per_image)) // 2 * 2 if per_image else 0


def same_update(memory_of: Callable[[int, int], int], size: int, accumulated: int, limit: int) -> Batch | None:
    """The largest smaller batch that fits into ``limit`` bytes, with the accumulation that keeps the images of an
    update; None where none does. An even size stays even, as mixing images wants it."""
    if size < 2:
        return None
    per_image, rest = _line(memory_of, size, accumulated)
    for parts in range(2, size + 1):
        smaller = size // parts
        if size % parts or (size % 2 == 0 and smaller % 2) or rest + per_image * smaller > limit:
            continue
        memory = memory_of(smaller, accumulated * parts)
        if memory <= limit:
            return Batch(smaller, accumulated * parts, memory)
    return None


def _line(memory_of: Callable[[int, int], int], size: int, accumulated: int) -> tuple[float, float]:
    """Bytes for each image of a batch, and beside all images."""
    other = size // 2 or 2
    per_image = (memory_of(size, accumulated) - memory_of(other, accumulated)) / (size - other)
    return per_image, memory_of(size, accumulated) - per_image * size
