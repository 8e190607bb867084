"""A run's settings beside those that it was saved with: what may change in a resume, and how a change is shown.

What a change of an option means is declared with the option (``resume`` and ``measures`` in recipe/option.py).
"""

import dataclasses
from pathlib import Path
from typing import cast

import yaml

from dccd_timm.errors import UserError
from dccd_timm.recipe import Optim, Recipe
from dccd_timm.recipe.option import option_of

Settings = dict[str, object]
Changes = dict[str, list[object]]  # name -> value before and after

_OPTIONS = {field.name: option_of(field) for field in dataclasses.fields(Recipe)}
_OPTIM = {field.name for field in dataclasses.fields(Optim)}
_OPTIMIZER = ("Optimizer", "Learning rate schedule")


def plain_settings(recipe: Recipe) -> Settings:
    """Every setting, as JSON and YAML have them."""
    return cast(Settings, _plain(dataclasses.asdict(recipe)))


def read_settings(run: Path) -> Settings:
    """What args.yaml of a run says; nothing without one."""
    path = run / "args.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def find_changes(saved: Settings, recipe: Recipe) -> Changes:
    """Settings that differ from the ``saved`` ones and can change the training; unknown names are left out."""
    return {
        name: [saved[name], value]
        for name, value in plain_settings(recipe).items()
        if name in saved and saved[name] != value and _OPTIONS[name].resume in ("listed", "refused")
    }


def refuse_changes(changes: Changes, recipe: Recipe) -> None:
    """Refuse what a training cannot go on with.

    Raises:
        UserError: names the flags.
    """
    refused = {name: values for name, values in changes.items() if _OPTIONS[name].resume == "refused"}
    optimizer = {name for name in refused if _OPTIONS[name].group in _OPTIMIZER}
    if recipe.no_resume_opt:
        refused = {name: values for name, values in refused.items() if name not in optimizer}
    if refused:
        hint = " (--no-resume-opt takes the weights alone, for another optimizer)" if optimizer else ""
        raise UserError(
            f"{describe_flags(refused)}: a resumed training cannot change it; keep the old value or start a new"
            f" run{hint}"
        )


def changes_optimizer(changes: Changes) -> Changes:
    """Those that may change the optimizer's parameter groups."""
    return {name: values for name, values in changes.items() if _OPTIONS[name].group == "Optimizer"}


def changes_rates(changes: Changes) -> bool:
    """Whether an option of optimizer or schedule is among them."""
    return not _OPTIM.isdisjoint(changes)


def changes_score(changes: Changes, validates: bool) -> bool:
    """Whether the score of an epoch means something else than before; without validation it is the training loss."""
    if validates:
        return any(_OPTIONS[name].measures for name in changes)
    return any(_OPTIONS[name].group not in _OPTIMIZER for name in changes)


def optim_before(changes: Changes, recipe: Recipe) -> Optim:
    """The recipe with the values before the changes, for those who read its optimizer."""
    before = {k: tuple(v) if isinstance(v, list) else v for k, (v, _) in changes.items() if k in _OPTIM}
    return dataclasses.replace(recipe, **before)  # type: ignore[arg-type]


def describe(changes: Changes) -> str:
    """Old and new value of each."""
    return ", ".join(f"{name} {_shown(old)} -> {_shown(new)}" for name, (old, new) in changes.items())


def describe_flags(changes: Changes) -> str:
    """The same by the names of the flags."""
    return describe({f"--{name.replace('_', '-')}": values for name, values in changes.items()})


def _plain(value: object) -> object:
    """``value`` with lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)
