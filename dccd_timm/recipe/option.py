"""How a setting is declared: everything that is known of it stands beside its field, and is read from there."""

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Literal, NamedTuple

Values = dict[str, Any]

# Groups of --help and of docs/flags.md, in their order.
GROUPS = (
    "Data",
    "Model",
    "Teacher and distillation (timm's names)",
    "DCCD",
    "Optimizer",
    "Learning rate schedule",
    "Augmentation and regularization",
    "Run",
    "Hugging Face Hub",
    "Device and precision",
    "Plan",
)


# timm's names for how images are resized
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class NoEffect(NamedTuple):
    """A reason for which an option changes nothing, and when it holds. The option is then ``refused``, or a flag gets a
    warning and a recipe may set it, as timm's args.yaml set all of timm's options."""

    when: Callable[[Values], bool]
    reason: str
    refused: bool = True


def without(name: str, reason: str | None = None) -> NoEffect:
    """No effect while another option is off or not set."""
    return NoEffect(lambda v: not v[name], reason or f"{name} is not set")


@dataclass(frozen=True)
class Option:
    """What is declared of a setting, beside the name, the type and the default of its field.

    Args:
        help: one phrase for --help and docs/flags.md.
        group: one of :data:`GROUPS`.
        flags: further spellings on the command line.
        each: a spelling that takes one value of several and may be given several times.
        choices: the values that are allowed, where the annotation is not a ``Literal`` that names them.
        or_number: what a whole number is of, where one is allowed beside the choices: ``pixels``.
        count: number of values of a tuple.
        const: value of the flag when it is given without one.
        low, high: range, both included.
        no_effect: reasons for which it may change nothing; a value that differs from the default is then refused.
        resume: what another value means for a training that is resumed. ``free``: it cannot change the training;
            ``listed``: the training goes on with the new value, which is logged and recorded; ``refused``: it cannot
            go on; ``once``: the option is about one start of the program, and is not remembered.
        measures: a validation's result depends on it, so that a best score from before the change does not count.
        usual: one of the few that --help shows; --help-all shows every one.
        views: the pixels of a training view depend on it.
        published: how it is shown in a published run: as it is; not at all; or, for a ``file``, ``model`` or
            ``dataset``, by its name without the place on the author's machine.
    """

    help: str
    group: str
    flags: tuple[str, ...] = ()
    each: str = ""
    choices: tuple[str, ...] = ()
    or_number: str = ""
    count: int | None = None
    const: str | None = None
    low: float | None = None
    high: float | None = None
    no_effect: tuple[NoEffect, ...] = ()
    resume: Literal["free", "listed", "refused", "once"] = "listed"
    measures: bool = False
    usual: bool = False
    views: bool = False
    published: Literal["yes", "no", "file", "model", "dataset"] = "yes"


def option(default: Any, help: str, *flags: str, group: str, **more: Any) -> Any:
    """Declare a setting; ``more`` are the other parts of an :class:`Option`.

    A default of None means "decide for me". Where :func:`dccd_timm.recipe.rules.resolve` decides, the field's type is
    that of the result, without None.
    """
    metadata = {"option": Option(help, group, flags, **more)}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_of(spec: Field[Any]) -> Option:
    """What was declared of a field."""
    declared: Option = spec.metadata["option"]
    return declared


def spellings_of(spec: Field[Any]) -> list[str]:
    """All spellings of a setting's flag."""
    declared = option_of(spec)
    return [*filter(None, (f"--{spec.name.replace('_', '-')}", *declared.flags, declared.each))]


def default_of(spec: Field[Any]) -> Any:
    """A field's default."""
    return spec.default_factory() if spec.default_factory is not MISSING else spec.default


class Kind(NamedTuple):
    """What a field holds: values of ``base``, several if ``many``, None if ``optional``, one of ``choices`` if any."""

    base: type
    many: bool
    optional: bool
    choices: tuple[str, ...]


def kind_of(spec: Field[Any]) -> Kind:
    """Read a field's annotation: X, X | None, Literal[...], tuple[X, ...] or dict[str, Any]."""
    annotation: Any = spec.type
    optional = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    if optional:
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    choices, many = option_of(spec).choices, origin is tuple
    if origin is Literal:
        annotation, choices = str, inner
    elif many:
        annotation = inner[0]
    elif origin is not None:
        annotation = origin
    return Kind(annotation, many, optional or spec.default is None, choices)
