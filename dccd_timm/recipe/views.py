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


def plan_views(relations: Sequence[str], count: int) -> list[View]:
    """The views that ``--dccd-view-aug`` asks for.

    ``same``: all strong. ``weak-strong``: the first weak. ``near``: the last a near copy of the first. Or one value
    for each view: ``strong``, ``weak``, ``near:K``, a near copy of view K.

    Raises:
        ValueError: for unknown values, another number of values than views, or a copy of a view that is not drawn.
    """
    if len(relations) == 1 and relations[0] in PRESETS:
        preset = relations[0]
        if preset != "same" and count < 2:
            raise ValueError(f"{preset} relates two or more views: set dccd_views")
        first = View(strong=preset != "weak-strong")
        rest = [View()] * (count - 1)
        return [first, *rest[:-1], View(near=0)] if preset == "near" else [first, *rest]
    if len(relations) != count:
        raise ValueError(
            f"{len(relations)} values for {count} views: give {', '.join(PRESETS)}, or one value for each view"
        )
    views = [_view(relation) for relation in relations]
    for number, view in enumerate(views):
        if view.near is not None and (view.near >= count or views[view.near].near is not None):
            raise ValueError(f"view {number} is to be near view {view.near}, which is not drawn by itself")
    return views


def _view(relation: str) -> View:
    copy = re.fullmatch(r"near:(\d+)", relation)
    if copy:
        return View(strong=False, near=int(copy[1]))
    if relation not in ("strong", "weak"):
        raise ValueError(f"{relation!r} is no view: strong, weak or near:K; or one of {', '.join(PRESETS)} for all")
    return View(strong=relation == "strong")


def difference_pair(views: Sequence[View]) -> tuple[int, int]:
    """The two views whose difference is compared: an original and its near copy, else the first two."""
    return next(((v.near, k) for k, v in enumerate(views) if v.near is not None), (0, 1))
