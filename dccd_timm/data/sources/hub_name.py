"""Which names of ``hfids/`` and ``hfds/`` the Hub is asked for: not those that can only be meant as folders."""

import difflib
import re
from pathlib import Path

from dccd_timm.errors import UserError
from dccd_timm.recipe import Images


def check_hub_name(images: Images) -> None:
    """Refuse a name of a data set that is no folder, and cannot be one of the Hub or is not meant as one.

    It is meant as a folder when it begins with ``/``, ``.`` or ``~``, or the folder before its last part exists.

    Raises:
        UserError: with the nearest folder, or what the name is.
    """
    origin, _, name = images.dataset.partition("/")
    parents = _parents(name, images.data_dir if origin.lower() == "hfids" else None)
    if parents or name.startswith(("/", ".", "~")):
        raise UserError(_missing_folder(origin, name, parents))
    if found := re.fullmatch(r"(?:https?://[^/]+/)?datasets/([\w.-]+/[\w.-]+?)(?:/.*)?", name):
        raise UserError(f"--dataset {images.dataset} is an address: the data set is {origin}/{found[1]}")
    if found := re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)[@:](.+)", name):
        raise UserError(
            f"{name} does not exist: a branch, tag or commit of {origin}/{found[1]} is --dataset-revision {found[2]}"
        )
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(_missing_folder(origin, name, parents))


def _missing_folder(origin: str, name: str, parents: list[Path]) -> str:
    folders = {path.name: path for parent in parents for path in parent.iterdir() if path.is_dir()}
    near = difflib.get_close_matches(Path(name).name, folders, n=1)
    places = "here or to --data-dir" if origin.lower() == "hfids" else "here"
    hint = f"; did you mean {origin}/{folders[near[0]]}?" if near else ""
    return f"data folder {name} does not exist (--dataset {origin}/FOLDER, relative to {places}){hint}"


def _parents(name: str, data_dir: str | None) -> list[Path]:
    """Folders before the last part of a name that has several."""
    before = Path(name).parent
    if before == Path():
        return [before] if name.startswith(".") else []
    return [path for path in (before, Path(data_dir or ".") / before) if path.is_dir()]
