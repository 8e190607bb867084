"""docs/flags.md out of the declarations: ``python -m dccd_timm.recipe.document > docs/flags.md``."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from typing import Any

from dccd_timm.recipe.foreign import ForeignFlag
from dccd_timm.recipe.option import GROUPS, kind_of, option_of, spellings_of
from dccd_timm.recipe.parse import shown_default
from dccd_timm.recipe.recipe import Recipe
from dccd_timm.recipe.timm_flags import REFUSED, TAKEN_OVER

_HEAD = """# Flags of train.py

Written from the declarations in `dccd_timm/recipe/` by `python -m dccd_timm.recipe.document > docs/flags.md`.

A recipe is a YAML file of the same names with `_` in place of `-`; the command line beats the recipe. On the command
line `--no-...` unsets a switch that the recipe sets, and an empty text unsets an option without a default. A value
other than the default is an error where the option has no effect; on the command line, some of timm's get a warning
instead. `--data-dir`, alone on the command line, takes the place of a recipe's `hfids/` or `hfds/` data set.

*Resumed* says what another value means for a run that is resumed: nothing where the column is empty; `listed`, the
training goes on with it, which is logged and recorded; `new score`, the best score so far does not count any more;
`refused`.

*Published* says how a pushed student's `args.yaml` and `recipe.yaml` show the option: `yes`, as it is; `no`, not at
all; `name`, without the place on your machine.
"""
_NOUNS = {bool: ("switch", ""), int: ("integer", "integers"), float: ("number", "numbers"), str: ("text", "texts")}


def flags_page() -> str:
    """The whole page."""
    usual = [f"`--{spec.name.replace('_', '-')}`" for spec in fields(Recipe) if option_of(spec).usual]
    lines = [_HEAD, f"`--help` shows the usual ones, `-c` and {', '.join(usual)}; `--help-all` shows all.", ""]
    for group in GROUPS:
        specs = [spec for spec in fields(Recipe) if option_of(spec).group == group]
        if specs:
            lines += [f"## {group}", "", *_table(specs), ""]
    lines += [
        "## Flags of timm that have no meaning here",
        "",
        "Accepted, with a notice:",
        "",
        *_answers(TAKEN_OVER),
        "",
    ]
    lines += ["Refused, with the reason:", "", *_answers(REFUSED)]
    return "\n".join(lines) + "\n"


def _table(specs: Iterable[Field[Any]]) -> Iterator[str]:
    yield "| flag | default | values | meaning | resumed | no effect when | published |"
    yield "|---|---|---|---|---|---|---|"
    for spec in specs:
        declared, default = option_of(spec), shown_default(spec)
        flags = " ".join(f"`{flag}`" for flag in spellings_of(spec))
        reasons = "; ".join(rule.reason for rule in declared.no_effect)
        published = declared.published if declared.published in ("yes", "no") else "name"
        resumed: str = declared.resume if declared.resume in ("listed", "refused") else ""
        if declared.measures:
            resumed += ", new score"
        cells = [flags, f"`{default}`" if default else "", _values(spec), declared.help, resumed, reasons, published]
        yield "| " + " | ".join(cell.replace("<", "\\<") for cell in cells) + " |"


def _values(spec: Field[Any]) -> str:
    """What a flag takes, and its range."""
    declared, kind = option_of(spec), kind_of(spec)
    if kind.base is dict:
        return "`key=value` ..."
    if kind.choices:
        return ", ".join(filter(None, [*(f"`{choice}`" for choice in kind.choices if choice), declared.or_number]))
    one, several = _NOUNS[kind.base]
    text = f"{declared.count} {several}" if declared.count else several if kind.many else one
    if declared.low is not None and declared.high is not None:
        return f"{text}, {declared.low:g} ... {declared.high:g}"
    return text if declared.low is None else f"{text}, at least {declared.low:g}"


def _answers(flags: Iterable[ForeignFlag]) -> Iterator[str]:
    yield "| flag | why |"
    yield "|---|---|"
    for foreign in flags:
        yield f"| `{foreign.flag}` | {foreign.answer} |"


if __name__ == "__main__":
    sys.stdout.write(flags_page())
