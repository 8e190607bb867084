"""Where images come from: one file an origin, all behind the protocol :class:`~dccd_timm.data.sources.base.Source`.

A new origin is a file here and its line in ``_OPENERS``.
"""

from collections.abc import Callable
from pathlib import Path

from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.hfds import open_hfds
from dccd_timm.data.sources.hfids import open_hfids
from dccd_timm.data.sources.loose import open_loose
from dccd_timm.data.sources.timm_readers import open_timm
from dccd_timm.errors import UserError, composed
from dccd_timm.recipe import Images

__all__ = ["Source", "open_split"]

# First part of --dataset -> what opens it; timm opens all others.
_OPENERS: dict[str, Callable[[Images, str, bool, int | None], Source]] = {
    "hfds": open_hfds,
    "hfids": open_hfids,
}
# What timm reads; it would take any other name for a folder of class folders, and not use it.
_READ_BY_TIMM = ("folder", "image_folder", "imagefolder", "tar", "torch", "tfds", "wds")


def open_split(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split of a data set; ``num_samples`` is its size, for streams that do not say.

    Raises:
        UserError: missing or empty folder, unknown split or column, unreadable data set; one line with the fix.
    """
    origin, slash, _ = images.dataset.partition("/")
    if images.dataset and origin.lower() not in (*_OPENERS, *_READ_BY_TIMM):
        name = images.dataset
        other = f"--data-dir {name}" if Path(name).exists() else "--data-dir FOLDER for a folder of class folders"
        raise UserError(f"--dataset {name} names no reader: give hfids/{name}, or {other}")
    if images.is_unlabelled and not (slash and origin.lower() in _OPENERS):
        return open_loose(images, split)
    source = _OPENERS.get(origin.lower() if slash else "", open_timm)(images, split, is_training, num_samples)
    if source.names:
        names = [composed(name) for name in source.names]
        source.names = names if len(set(names)) == len(set(source.names)) else source.names
    return source
