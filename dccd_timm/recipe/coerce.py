"""Texts and YAML values -> typed settings, by the annotation of the field."""

import ast
import math
from dataclasses import Field
from typing import Any

from dccd_timm.errors import UserError
from dccd_timm.recipe.option import Kind, Option, default_of, kind_of, option_of

_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def coerce(spec: Field[Any], value: Any) -> Any:
    """One setting's value, typed and in range.

    Raises:
        UserError: says what was expected and what came.
    """
    kind, declared = kind_of(spec), option_of(spec)
    if kind.optional and value in (None, ""):  # an empty text is how the command line unsets what a recipe sets
        return None
    if value is None or (kind.many and value == [""]):
        value = default_of(spec)
    if kind.base is dict:
        return _mapping(value)
    if kind.many:
        alone = value[0] if isinstance(value, list) and len(value) == 1 and kind.base is not str else value
        if isinstance(alone, str):  # also of the command line
            value = _literal(alone)
        values = tuple(_scalar(kind, v, declared) for v in (value if isinstance(value, list | tuple) else [value]))
        if not values and kind.optional:
            return None
        if declared.count and len(values) != declared.count:
            raise UserError(f"needs {declared.count} values, got {len(values)}")
        return values
    if isinstance(value, list | tuple | dict):
        inner = value[0] if isinstance(value, list | tuple) and len(value) == 1 else None
        came = "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"
        fix = "give one" if inner is None else f"write {inner!r} without the brackets"
        raise UserError(f"needs {_NOUNS[kind.base]} and not {came}, got {value!r}: {fix}")
    return _scalar(kind, value, declared)


def _scalar(kind: Kind, value: Any, declared: Option) -> Any:
    result = _typed(kind.base, value)
    if kind.choices and result not in kind.choices and not (declared.or_number and _is_number(result)):
        number = f", or a number of {declared.or_number}" if declared.or_number else ""
        raise UserError(f"must be one of {', '.join(c for c in kind.choices if c)}{number}, got {value!r}")
    if declared.low is not None and result < declared.low:
        raise UserError(f"must be at least {declared.low:g}, got {value!r}")
    if declared.high is not None and result > declared.high:
        raise UserError(f"must be at most {declared.high:g}, got {value!r}")
    return result


def _is_number(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _typed(base: type, value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text and 1.0 as a float: both are taken as the number they are, and no more."""
    wrong = UserError(f"needs {_NOUNS[base]}, got {value!r} ({type(value).__name__})")
    if base is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if base is str:
        if isinstance(value, bool | dict | list):
            raise wrong
        return str(value)
    if isinstance(value, bool):
        raise wrong
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not math.isfinite(number):
        raise UserError(f"must be a finite number, got {value!r}")
    if base is int:
        if number != int(number):
            raise wrong
        return int(number)
    return number


def _mapping(value: Any) -> dict[str, Any]:
    """timm's ParseKwargs: ``key=value`` arguments whose values are Python literals where they can be."""
    if isinstance(value, dict):
        return {str(k): v for k, v in value.items()}
    result = {}
    for pair in [value] if isinstance(value, str) else value or []:
        key, equals, text = str(pair).partition("=")
        if not equals or not key:
            raise UserError(f"needs key=value, got {pair!r}")
        result[key] = _literal(text, also_plain=True)
    return result


def _literal(text: str, also_plain: bool = False) -> Any:
    """The Python value of a text that begins with a bracket, or ``also_plain``; any other text as it is.

    Raises:
        UserError: for a text that begins with a bracket and is no value.
    """
    opened = text.strip()[:1] in ("(", "[", "{")
    if not opened and not also_plain:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if opened:
            raise UserError(f"{text} is no value: check its brackets, and quote it in the shell") from None
        return text
