"""How the views of an image relate: which are drawn by themselves, and which are minor changes of another one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

PRESETS = ("same", "weak-strong", "near")


@dataclass(frozen=True)
class View:
    """One view: ``strong`` by the recipe's augmentation, ``weak`` by its crop and flips alone, or a near copy of view
    ``near``."""

    strong: bool = True
    near: int | None = None


def plan_views(words: Sequence[str], count: int) -> list[View]:
    """The views that ``--dccd-view-aug`` asks for.

    ``same``: all strong. ``weak-strong``: the first weak. ``near``: the last a near copy of the first. Or a word for
    each view: ``strong``, ``weak``, ``near:K``, a near copy of view K.

    Raises:
        ValueError: for unknown words, another number of words than views, or a copy of what is none or a copy itself.
    """
    if len(words) == 1 and words[0] in PRESETS:
        if words[0] != "same" and count < 2:
            raise ValueError(f"{words[0]} relates two or more views: set dccd_views")
        first = View(strong=words[0] != "weak-strong")
        rest = [View()] * (count - 1)
        return [first, *rest[:-1], View(near=0)] if words[0] == "near" else [first, *rest]
    if len(words) != count:
        raise ValueError(f"{len(words)} words for {count} views: give {', '.join(PRESETS)}, or a word for each view")
    views = []
    for word in words:
        copy = re.fullmatch(r"near:(\d+)", word)
        if word not in ("strong", "weak") and not copy:
            raise ValueError(f"{word!r} is no view: strong, weak or near:K; or one of {', '.join(PRESETS)} for all")
        views.append(View(strong=word == "strong", near=int(copy[1])) if copy else View(strong=word == "strong"))
    for number, view in enumerate(views):
        if view.near is not None and (view.near >= count or views[view.near].near is not None):
            raise ValueError(f"view {number} is to be near view {view.near}, which is not drawn by itself")
    return views


def difference_pair(views: Sequence[View]) -> tuple[int, int]:
    """The two views whose difference is compared: an original and its near copy, else the first two."""
    return next(((v.near, k) for k, v in enumerate(views) if v.near is not None), (0, 1))
