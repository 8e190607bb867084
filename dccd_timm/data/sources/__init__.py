"""Where images come from: one file an origin, all behind the protocol :class:`~dccd_timm.data.sources.base.Source`.

A new origin is a file here and its line in ``_OPENERS``.
"""

from collections.abc import Callable

from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.hfids import open_hfids
from dccd_timm.data.sources.timm_readers import open_timm
from dccd_timm.recipe import Images

__all__ = ["Source", "open_split"]

# First part of --dataset -> what opens it; timm opens all others.
_OPENERS: dict[str, Callable[[Images, str, bool, int | None], Source]] = {
    "hfids": open_hfids,
}


def open_split(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split of a data set; ``num_samples`` is its size, for streams that do not say.

    Raises:
        UserError: missing or empty folder, unknown split or column, unreadable data set; one line with the fix.
    """
    origin, slash, _ = images.dataset.partition("/")
    return _OPENERS.get(origin if slash else "", open_timm)(images, split, is_training, num_samples)
