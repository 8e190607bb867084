"""A user's own modules and files, imported first: they register networks with timm, or devices with torch."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dccd_timm.errors import UserError, one_line
from dccd_timm.launch.guard import log_in_worker


def import_modules(names: Sequence[str]) -> None:
    """Import each module, or ``.py`` file; modules may lie in the current folder, and in that of a file.

    Raises:
        UserError: for one that is not there, or whose code fails.
    """
    if names:
        _add_to_path(Path.cwd())
    for name in names:
        path = Path(name).expanduser()
        try:
            if name.endswith(".py") or os.sep in name:
                _import_file(path.absolute(), name)
            else:
                importlib.import_module(name)
        except UserError:
            raise
        except ModuleNotFoundError as error:
            own = error.name == name.split(".")[0] or error.name == name
            file = f"; a file is named with its ending, --import {name}.py" if own else ""
            raise UserError(f"--import {name} cannot be imported: {error}{file}") from error
        except Exception as error:  # the user's code may raise any kind
            raise UserError(f"--import {name} cannot be imported: {_cause(error)}") from error


def worker_preparation(names: Sequence[str]) -> Callable[[int], None]:
    """What a loader worker does first: it logs as its rank, and imports the same modules, none of which it inherits."""
    return partial(_prepare_worker, tuple(names))


def _prepare_worker(names: tuple[str, ...], number: int) -> None:
    log_in_worker(number)
    import_modules(names)


def _add_to_path(folder: Path) -> None:
    """Have Python look for modules in ``folder`` too, after all other places: no name there hides an installed one."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _import_file(path: Path, name: str) -> None:
    """Import a file as the module of its name, unless that is done."""
    if path.suffix != ".py":
        raise UserError(f"--import {name} is no .py file: give a file, or a module's name with dots")
    if not path.is_file():
        raise UserError(f"--import {name} does not exist")
    stem = path.stem
    if "." in stem:
        raise UserError(f"--import {name}: a module's name has no dot: rename the file")
    known = sys.modules.get(stem)
    spec = known.__spec__ if known else importlib.util.find_spec(stem)
    if spec is not None and (spec.origin is None or Path(spec.origin).resolve() != path.resolve()):
        raise UserError(f"--import {name}: Python has another module {stem}: rename the file")
    if known is not None:
        return
    _add_to_path(path.parent)
    importlib.invalidate_caches()
    importlib.import_module(stem)


def _cause(error: Exception) -> str:
    """The error of a user's code, with the place in it."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {one_line(error)}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(error)} ({Path(frame.filename).name}, line {frame.lineno})"
