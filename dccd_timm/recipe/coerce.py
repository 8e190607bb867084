"""Texts and YAML values -> typed settings, by the annotation of the field."""

import ast
import math
import types
import typing
from dataclasses import MISSING, Field
from typing import Any, NamedTuple

from dccd_timm.errors import UserError


class Kind(NamedTuple):
    """What a field holds: values of ``base``, several of them if ``many``, None if ``optional``."""

    base: type
    many: bool
    optional: bool


def kind_of(spec: Field[Any]) -> Kind:
    """Read a field's annotation: X, X | None, tuple[X, ...] or dict[str, Any]."""
    annotation: Any = spec.type
    optional = isinstance(annotation, types.UnionType)
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is tuple:
        return Kind(typing.get_args(annotation)[0], True, optional)
    return Kind(typing.get_origin(annotation) or annotation, False, optional)


def coerce(spec: Field[Any], value: Any) -> Any:
    """One setting's value, typed and in range.

    Raises:
        UserError: says what was expected and what came.
    """
    kind, meta = kind_of(spec), spec.metadata
    if kind.optional and value in (None, ""):  # an empty text is how the command line unsets a recipe's word
        return None
    if value is None:
        value = spec.default_factory() if spec.default_factory is not MISSING else spec.default
    if kind.base is dict:
        return _mapping(value)
    if kind.many:
        if isinstance(value, str) and value.strip()[:1] in ("(", "["):
            value = ast.literal_eval(value)
        values = tuple(_scalar(kind.base, v, meta) for v in (value if isinstance(value, list | tuple) else [value]))
        if not values and kind.optional:
            return None
        if meta["count"] and len(values) != meta["count"]:
            raise UserError(f"needs {meta['count']} values, got {len(values)}")
        return values
    if isinstance(value, list | tuple | dict):
        raise UserError(f"needs one {_word(kind.base)}, got {value!r}")
    return _scalar(kind.base, value, meta)


def _scalar(base: type, value: Any, meta: Any) -> Any:
    result = _typed(base, value)
    if meta["choices"] and result not in meta["choices"]:
        raise UserError(f"must be one of {', '.join(c for c in meta['choices'] if c)}, got {value!r}")
    if meta["low"] is not None and result < meta["low"]:
        raise UserError(f"must be at least {meta['low']:g}, got {value!r}")
    if meta["high"] is not None and result > meta["high"]:
        raise UserError(f"must be at most {meta['high']:g}, got {value!r}")
    return result


def _typed(base: type, value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text and 1.0 as a float: both are taken as the number they are, and no more."""
    wrong = UserError(f"needs {_word(base)}, got {value!r} ({type(value).__name__})")
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
    """timm's ParseKwargs: ``key=value`` words whose values are Python literals where they can be."""
    if isinstance(value, dict):
        return {str(k): v for k, v in value.items()}
    result = {}
    for word in value or []:
        key, equals, text = str(word).partition("=")
        if not equals:
            raise UserError(f"needs key=value, got {word!r}")
        try:
            result[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            result[key] = text
    return result


def _word(base: type) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[base]
