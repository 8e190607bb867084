"""A command line made of a dataclass's fields; YAML and flags are read by the same code, mistakes are collected."""

import argparse
import dataclasses
import difflib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import Field
from typing import Any, NamedTuple

from dccd_timm.errors import UserError
from dccd_timm.recipe.coerce import coerce
from dccd_timm.recipe.foreign import ForeignFlag
from dccd_timm.recipe.help import OneLineParser
from dccd_timm.recipe.option import GROUPS, default_of, kind_of, option_of, spellings_of

_logger = logging.getLogger(__name__)


class Program(NamedTuple):
    """What --help says of a program beside its options."""

    prog: str
    description: str
    usage: str
    positional: str  # argument without a flag; it is not offered
    examples: tuple[str, ...]
    takes_recipe: bool = False


class Grammar:
    """The options of one program: fields of ``settings`` as flags, and foreign flags that are only answered."""

    def __init__(
        self, settings: type, taken_over: Iterable[ForeignFlag], refused: Iterable[ForeignFlag], program: Program
    ) -> None:
        self.fields: dict[str, Field[Any]] = {f.name: f for f in dataclasses.fields(settings)}
        self.refused = {f.name: f for f in refused}
        self.foreign: dict[str, ForeignFlag] = {**{f.name: f for f in taken_over}, **self.refused}
        self.program = program
        # further long spellings, of keys in a recipe too
        self.spellings = {
            flag[2:].replace("-", "_"): name
            for name, spec in self.fields.items()
            for flag in spellings_of(spec)
            if flag.startswith("--")
        }

    def parser(self, shows_all: bool = False) -> OneLineParser:
        """The command line; values stay text until :meth:`typed` reads them. --help shows the usual options, or all."""
        program = self.program
        parser = OneLineParser(program.prog, program.description, program.examples, program.usage)
        parser.add_argument(program.positional, nargs="?", help=argparse.SUPPRESS)
        usual = parser.usual_group()
        if program.takes_recipe:
            text = "recipe: a YAML file of these names, without the leading dashes"
            usual.add_argument("-c", "--config", metavar="FILE", help=text)
        for title in GROUPS:
            group = parser.add_argument_group(title)
            for spec in self.fields.values():
                declared = option_of(spec)
                if declared.group == title:
                    _add_flag(usual if declared.usual else group, spec, declared.usual or shows_all)
                    if not (declared.usual or shows_all):
                        parser.hidden[title] = parser.hidden.get(title, 0) + 1
        parser.add_about(has_more=True)
        for foreign in self.foreign.values():
            keywords: dict[str, Any] = {"action": "store_true"} if foreign.takes == 0 else {}
            if foreign.takes == "+":
                keywords["nargs"] = "+"
            parser.add_argument(
                *foreign.flags, dest=foreign.name, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **keywords
            )
        return parser

    def parse(self, argv: Sequence[str], errors: list[str]) -> dict[str, Any]:
        """What stands on the command line, as text; unknown flags become errors with the nearest known one."""
        parser = self.parser(shows_all="--help-all" in argv)
        namespace, unknown = parser.parse_known_args(list(argv))
        errors += [self.unknown(text, "flag") for text in unknown if text.startswith("-")]
        strays = [text for text in unknown if not text.startswith("-")]
        if strays and not errors:  # after an unknown flag they are probably its values
            errors.append(f"unexpected {' '.join(strays)}: values follow a flag")
        return vars(namespace)

    def typed(self, raw: dict[str, Any], origin: str, errors: list[str]) -> dict[str, Any]:
        """Typed values of texts from ``origin``, which is "--" or a file.

        Foreign flags are answered; their defaults pass in silence.
        """
        typed = {}
        for name, value in raw.items():
            spelled = origin + (name.replace("_", "-") if origin == "--" else name)
            if foreign := self.foreign.get(name):
                spelled = foreign.flag if origin == "--" else spelled
                if _same(value, foreign.default):
                    continue
                if name in self.refused:
                    errors.append(f"{spelled} is refused: {foreign.answer}")
                else:
                    _logger.warning("%s is taken over: %s", spelled, foreign.answer)
                continue
            try:
                typed[name] = coerce(self.fields[name], value)
            except UserError as error:
                errors.append(f"{spelled}: {error}")
        return typed

    def unknown(self, name: str, noun: str) -> str:
        """One line about a name that is no setting, with the nearest one that is."""
        plain = name.lstrip("-").split("=")[0].replace("-", "_")
        known = [*self.spellings, *self.foreign]
        # timm's parser takes the beginning of a flag for the whole
        begun = [one for one in known if len(plain) > 2 and one.startswith(plain)]
        near = begun[:1] if len(begun) == 1 else difflib.get_close_matches(plain, known, n=1, cutoff=0.5)
        if not near:
            return f"unknown {noun} {name}; --help-all lists them all"
        spelled = "--" + near[0].replace("_", "-") if noun == "flag" else near[0]
        refused = self.refused.get(near[0])
        return f"unknown {noun} {name}; did you mean {spelled}?" + (
            f" It is refused: {refused.answer}" if refused else ""
        )


def _add_flag(group: argparse._ArgumentGroup, spec: Field[Any], is_shown: bool) -> None:
    name, declared, kind = spec.name, option_of(spec), kind_of(spec)
    flags = [f"--{name.replace('_', '-')}", *declared.flags]
    shown = shown_default(spec)
    text = f"{declared.help} ({shown})" if shown else declared.help
    text = text.replace("%", "%%") if is_shown else argparse.SUPPRESS
    keywords: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
    if kind.base is bool:
        group.add_argument(*flags, action="store_true", **keywords)
        if not name.startswith("no_"):  # so that the command line can switch off what a recipe switches on
            off = f"--no-{name.replace('_', '-')}"
            group.add_argument(off, action="store_false", **(keywords | {"help": argparse.SUPPRESS}))
        return
    if kind.many or kind.base is dict:
        keywords["nargs"] = declared.count or "*"
    elif declared.const:
        keywords |= {"nargs": "?", "const": declared.const}
    if kind.choices:
        keywords["metavar"] = "{" + ",".join([*filter(None, kind.choices), *["N"] * bool(declared.or_number)]) + "}"
    else:
        keywords["metavar"] = {dict: "K=V", int: "N", float: "X", str: "S"}[kind.base]
    if declared.each:  # one value, so that an argument after it is none of its values
        group.add_argument(declared.each, **(keywords | {"nargs": 1, "action": "extend"}))
        keywords |= {"action": "extend", "help": f"{declared.each}, several at once" if is_shown else text}
    group.add_argument(*flags, **keywords)


def shown_default(spec: Field[Any]) -> str:
    """The default as it stands in --help; nothing for "decide for me"."""
    default = default_of(spec)
    if default in (None, "", False, (), {}):
        return ""
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)


def _same(value: Any, default: Any) -> bool:
    """Whether a foreign flag was left at its default, given as text or as YAML."""
    if not value and not default:
        return True
    if isinstance(default, list) and isinstance(value, list):
        return [str(v) for v in value] == [str(v) for v in default]
    return str(value) == str(default)


def as_one_error(errors: list[str]) -> UserError:
    """All mistakes as one error of one line."""
    unique = list(dict.fromkeys(errors))
    return UserError(unique[0] if len(unique) == 1 else f"{len(unique)} mistakes: " + " | ".join(unique))
