"""Settings as they may be shown to the world: enough to train again, nothing about who trained where."""

import getpass
import re
import socket
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from dccd_timm.recipe import Recipe
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.option import Values, option_of
from dccd_timm.recipe.rules import defaults, no_effect
from dccd_timm.report.schema import SettingsChange

# name -> how it is published
_PUBLISHED = {f.name: option_of(f).published for f in fields(Recipe)}
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_ABSOLUTE = re.compile(r"(?<![\w.:/])~?(?:/[^\s/:,]+)*/([^\s/:,]+)")
_HUB_SOURCES = ("hfids/", "hfds/")


def public_settings(settings: Values, architectures: dict[str, str], pins: dict[str, str]) -> tuple[Values, list[str]]:
    """Settings that may be published, and notes on what has to be put in by hand.

    ``architectures`` names the model behind a ``local-dir:``, ``pins`` the commit of an ``hf-hub:`` name, by setting.
    What lies on this machine alone becomes the last part of its path.
    """
    shown = {k: v for k, v in settings.items() if _PUBLISHED.get(k) != "no"}
    notes = []
    for key, value in shown.items():
        kind = _PUBLISHED.get(key, "yes")
        if kind == "yes" or not value:
            continue
        if isinstance(value, list | tuple):
            shown[key] = [Path(place).name for place in value]
            notes.append(f"{', '.join(shown[key])} is imported first (--import) and is not published: ask its author")
            continue
        if kind == "dataset":
            source, place = split_dataset(value)
            local = not hub_data(value) if source in _HUB_SOURCES else "/" in place
        else:
            model = ModelName.parse(value)
            source, place = "", model.place
            local = model.is_private or (model.source == "timm" and kind == "file")
            if model.source == "hf-hub":
                shown[key] = replace(model, revision=model.revision or pins.get(key)).timm_name
        if local and _in_repository(place):
            notes.append(f"{place} lies in dccd-timm's repository: run it from there")
        elif local:
            name = _utf8(Path(place).name)
            name = architectures.get(key, name) if kind == "model" else source + ("data" if name == _user() else name)
            line = " ".join(name.split())  # a note is a comment in recipe.yaml
            notes.append(f"{key} was a place on the author's machine: put yours instead of {line}")
            shown[key] = name
    return {key: scrubbed(value) for key, value in shown.items()}, notes


def public_changes(
    changes: Sequence[SettingsChange], architectures: dict[str, str], pins: dict[str, str]
) -> list[SettingsChange]:
    """What resumes changed in the settings, shown as the settings themselves."""
    shown = []
    for change in changes:
        before, after = (
            public_settings({name: values[k] for name, values in change.settings.items()}, architectures, pins)[0]
            for k in (0, 1)
        )
        shown.append(
            SettingsChange(epoch=change.epoch, settings={name: [before[name], after[name]] for name in before})
        )
    return shown


def changed_settings(settings: Values) -> Values:
    """Those settings that differ from their defaults, and DCCD's own that have an effect: another version of this
    package may have other defaults for them."""
    known = defaults()

    def is_shown(name: str, value: object) -> bool:
        own = settings.get("kd_distill_type") == "dccd" and name.startswith("dccd_") and value is not None
        return (own or _plain(value) != _plain(known[name])) and no_effect(Recipe, name, known | settings) is None

    return {name: value for name, value in settings.items() if name in known and is_shown(name, value)}


def split_dataset(name: str) -> tuple[str, str]:
    """Reader (``hfids/``, ``torch/`` ... or nothing) and place of a data set."""
    found = re.fullmatch(r"([a-z_]+/)?(.*)", name)
    assert found is not None
    return found[1] or "", found[2]


def hub_data(dataset: str) -> str | None:
    """The Hub id of a data set, or None when it lies elsewhere."""
    source, place = split_dataset(dataset)
    return place if source in _HUB_SOURCES and _on_hub(place) else None


def scrubbed(value: object) -> object:
    """``value`` without tokens, absolute paths, home folder and host name."""
    if isinstance(value, dict):
        return {k: scrubbed(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(v) for v in value]
    if not isinstance(value, str):
        return value
    value = _ABSOLUTE.sub(r"\1", _TOKEN.sub("hf_...", _utf8(value)))
    for private in (str(Path.home()), socket.gethostname()):
        value = value.replace(private, "...") if len(private) > 2 else value
    return value


def _utf8(text: str) -> str:
    """A text that can be written: a file name may have bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _in_repository(place: str) -> bool:
    """Whether a place lies in this package's repository, so that everybody has it."""
    return place.startswith("recipes/") and ".." not in place


def _on_hub(place: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", place) is not None and not Path(place).exists()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have no entry for its user
        return ""
