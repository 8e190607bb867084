"""Folders that settings name, of data sets and models: one that is not there is refused before anything is imported.

Names of ``hfids/`` and ``hfds/`` that can only be meant as folders are not looked up on the Hub.
"""

import difflib
import re
import shlex
from pathlib import Path

from dccd_timm.errors import UserError
from dccd_timm.recipe.data import TORCHVISION_FOLDERS, Images, local_folder, reader_of
from dccd_timm.recipe.model_name import ModelName


def check_data_folder(images: Images) -> None:
    """Refuse a data set that is meant as a folder which is not there.

    Raises:
        UserError: with the nearest folder, where one is near.
    """
    reader, dataset = reader_of(images.dataset), images.dataset.lower()
    if reader == "hfids":
        if local_folder(images.dataset, images.data_dir) is None:
            check_hub_name(images)
    elif reader == "hfds":
        if not Path(images.dataset.partition("/")[2]).exists():
            check_hub_name(images)
    elif reader == "folder" or dataset in TORCHVISION_FOLDERS:
        if images.data_dir and not Path(images.data_dir).exists():
            raise UserError(f"data folder {images.data_dir} does not exist{_near(Path(images.data_dir), '')}")
        if not images.data_dir and ("/" not in dataset or dataset in TORCHVISION_FOLDERS):
            raise UserError("no data: set --data-dir FOLDER, or --dataset hfids/FOLDER")


def check_model_folder(name: str | None, role: str) -> None:
    """Refuse a ``local-dir:`` name whose folder holds no exported model; ``role`` says which model it is.

    Raises:
        UserError: with the folder that may be meant.
    """
    model = ModelName.parse(name or "")
    folder = Path(model.place)
    if model.source != "local-dir" or (folder / "config.json").is_file():
        return
    if not folder.is_dir():
        raise UserError(f"{role} {name}: {folder} does not exist{_near(folder, 'local-dir:')}")
    run = ModelName.exported(model.place)
    near = "give an exported model, such as a run's best/"
    if run.brings_weights:
        near = f"did you mean {shlex.quote(run.timm_name)}?"
    raise UserError(f"{role} {name}: {folder} has no config.json; {near}")


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
    places = "here or to --data-dir" if origin.lower() == "hfids" else "here"
    hint = next(filter(None, (_near(parent / Path(name).name, f"{origin}/") for parent in parents)), "")
    return f"data folder {name} does not exist (--dataset {origin}/FOLDER, relative to {places}){hint}"


def _near(folder: Path, prefix: str) -> str:
    """The folder beside a missing one that has nearly its name, as a question."""
    try:
        folders = {path.name: path for path in folder.parent.iterdir() if path.is_dir()}
    except OSError:  # there is none, or it may not be read
        return ""
    near = difflib.get_close_matches(folder.name, folders, n=1)
    return f"; did you mean {shlex.quote(f'{prefix}{folders[near[0]]}')}?" if near else ""


def _parents(name: str, data_dir: str | None) -> list[Path]:
    """Folders before the last part of a name that has several."""
    before = Path(name).parent
    if before == Path():
        return [before] if name.startswith(".") else []
    return [path for path in (before, Path(data_dir or ".") / before) if path.is_dir()]
