"""Recipe file and flags -> one checked Recipe; every mistake is reported, all at once, before anything is built."""

import argparse
import difflib
import logging
from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dccd_timm.recipe.check import contradictions, dead_knobs, resolve
from dccd_timm.recipe.coerce import coerce, kind_of
from dccd_timm.recipe.errors import UserError
from dccd_timm.recipe.fields import Recipe
from dccd_timm.recipe.timm_flags import REFUSED, TAKEN_OVER, ForeignFlag

_logger = logging.getLogger(__name__)

FIELDS: dict[str, Field[Any]] = {f.name: f for f in fields(Recipe)}
FOREIGN: dict[str, ForeignFlag] = {**TAKEN_OVER, **REFUSED}
# Written into args.yaml for the reader; they are facts about a run, not settings.
_FACTS = ("versions", "config", "data")


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line with the nearest known flag, without the usage of 190 flags."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UserError` instead of printing the usage and exiting."""
        raise UserError(message)


def load_recipe(argv: Sequence[str]) -> Recipe:
    """Parse ``argv`` (with ``-c FILE`` for a recipe) into a Recipe; the command line beats the file.

    Raises:
        UserError: for unknown keys, wrong types, values out of range, contradictions and settings without effect.
    """
    parser = build_parser()
    namespace, unknown = parser.parse_known_args(list(argv))
    typed = vars(namespace)
    errors = [_unknown(flag, "flag") for flag in unknown if flag.startswith("-")]
    errors += [f"unexpected argument {text!r}" for text in unknown if not text.startswith("-")]

    from_file: dict[str, Any] = {}
    if path := typed.pop("config", None):
        from_file = _read_yaml(Path(path), errors)
    if data := typed.pop("data", None):
        _logger.warning("a positional data folder is deprecated in timm: read as --data-dir %s", data)
        typed.setdefault("data_dir", data)

    from_file = _coerce_all(from_file, f"{path}: " if path else "", errors)
    given = _coerce_all(typed, "--", errors)
    if errors:
        raise UserError(_joined(errors))
    # A recipe may hold words for a method that the command line switched off; words that are dead in their own
    # place are mistakes.
    errors += dead_knobs(from_file, set(from_file)) + dead_knobs(from_file | given, set(given))
    values = resolve(from_file | given)
    errors += contradictions(values)
    if errors:
        raise UserError(_joined(list(dict.fromkeys(errors))))
    return Recipe(**values)


def build_parser() -> argparse.ArgumentParser:
    """The command line of train.py: one flag per field of Recipe, and timm's flags that we only answer."""
    parser = OneLineParser(
        prog="dccd-train",
        description="Distil a timm student from a timm teacher. Flags are timm's; DCCD adds --dccd-*.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=118),
    )
    parser.add_argument("data", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("-c", "--config", metavar="FILE", help="recipe: a YAML file of the same words, without dashes")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, spec in FIELDS.items():
        meta = spec.metadata
        group = groups.setdefault(meta["group"], parser.add_argument_group(meta["group"]))
        _add_flag(group, name, spec)
    for foreign in FOREIGN.values():
        keywords: dict[str, Any] = {"action": "store_true"} if foreign.takes == 0 else {}
        if foreign.takes == "+":
            keywords["nargs"] = "+"
        parser.add_argument(
            foreign.flag, dest=foreign.name, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **keywords
        )
    return parser


def _add_flag(group: argparse._ArgumentGroup, name: str, spec: Field[Any]) -> None:
    """Add one field's flag; values stay text, so that flags and YAML are read by the same code."""
    meta = spec.metadata
    flags = [f"--{name.replace('_', '-')}", *meta["flags"]]
    default = spec.default if not callable(spec.default_factory) else {}
    shown = "" if default in (None, "", False, ()) or default == {} else f" ({_show(default)})"
    keywords: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": meta["help"] + shown}
    kind = kind_of(spec)
    if kind.base is bool:
        if not name.startswith("no_"):
            flags.append(f"--no-{name.replace('_', '-')}")
            group.add_argument(*flags[:-1], action="store_true", **keywords)
            group.add_argument(flags[-1], action="store_false", **(keywords | {"help": argparse.SUPPRESS}))
        else:
            group.add_argument(*flags, action="store_true", **keywords)
        return
    if kind.many or kind.base is dict:
        keywords["nargs"] = "*" if kind.base is dict or not meta["count"] else meta["count"]
    elif meta["const"]:
        keywords |= {"nargs": "?", "const": meta["const"]}
    if meta["choices"]:
        keywords["metavar"] = "{" + ",".join(c for c in meta["choices"] if c) + "}"
    else:
        keywords["metavar"] = "K=V" if kind.base is dict else kind.base.__name__.upper().replace("STR", "S")[:1]
    group.add_argument(*flags, **keywords)


def _show(default: Any) -> str:
    return " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in default) if isinstance(
        default, tuple
    ) else str(default)


def _read_yaml(path: Path, errors: list[str]) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"recipe {path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"recipe {path} is no YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise UserError(f"recipe {path} must be a mapping of names to values, not a {type(loaded).__name__}")
    known = {}
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        if name == "data" and value:
            known.setdefault("data_dir", value)
        elif name in _FACTS:
            continue
        elif name in FIELDS or name in FOREIGN:
            known[name] = value
        else:
            errors.append(f"{path}: " + _unknown(str(key), "key"))
    return known


def _coerce_all(raw: dict[str, Any], place: str, errors: list[str]) -> dict[str, Any]:
    """Turn texts into typed values; answer timm's flags that are no fields."""
    typed = {}
    for name, value in raw.items():
        spelled = name.replace("_", "-") if place == "--" else name
        if foreign := FOREIGN.get(name):
            if _same(value, foreign.default):
                continue
            if name in REFUSED:
                errors.append(f"{place}{spelled} is refused: {foreign.answer}")
            else:
                _logger.warning("%s%s is taken over: %s", place, spelled, foreign.answer)
            continue
        try:
            typed[name] = coerce(FIELDS[name], value)
        except UserError as error:
            errors.append(f"{place}{spelled}: {error}")
    return typed


def _same(value: Any, default: Any) -> bool:
    """Whether a foreign flag was left at timm's default, given as text or as YAML."""
    if not value and not default:
        return True
    if isinstance(default, list) and isinstance(value, list):
        return [str(v) for v in value] == [str(v) for v in default]
    return str(value) == str(default)


def _unknown(word: str, noun: str) -> str:
    plain = word.lstrip("-").split("=")[0].replace("-", "_")
    names = [*FIELDS, *FOREIGN]
    near = difflib.get_close_matches(plain, names, n=1, cutoff=0.5)
    if not near:
        return f"unknown {noun} {word}; --help lists them all"
    spelled = "--" + near[0].replace("_", "-") if noun == "flag" else near[0]
    return f"unknown {noun} {word}; did you mean {spelled}?"


def _joined(errors: list[str]) -> str:
    if len(errors) == 1:
        return errors[0]
    return f"{len(errors)} mistakes: " + " | ".join(errors)
