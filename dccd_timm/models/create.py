"""One way to ask timm for a model, with every failure told in one line."""

import difflib
import re
from typing import Any

import timm
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from timm.models import parse_model_name, resolve_model_input_args, split_model_name_tag
from torch import nn

from dccd_timm.recipe import UserError


def check_name(name: str, role: str) -> None:
    """Refuse a name that timm does not know, with the nearest one that it does.

    Raises:
        UserError: unknown architecture or source.
    """
    try:
        source, model_id = parse_model_name(name)
    except ValueError as error:
        raise UserError(f"{role}: {error}") from None
    if source:
        return
    architecture = split_model_name_tag(model_id)[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "timm.list_models() lists them all"
        raise UserError(f"{role}: timm has no model {architecture!r}; {hint}")


def create(name: str, role: str, **kwargs: Any) -> nn.Module:
    """``timm.create_model(name, **kwargs)`` for the student or the teacher, whichever ``role`` names.

    Raises:
        UserError: unknown name, wrong arguments, missing weights or no network; one line with the cause.
    """
    check_name(name, role)
    try:
        return timm.create_model(name, **kwargs)
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise UserError(
            f"{role} {name}: its weights could not be downloaded ({one_line(error)}); check the name and the network"
        ) from error
    except FileNotFoundError as error:
        where = error.filename or one_line(error) or name
        raise UserError(f"{role} {name}: {where} does not exist") from error
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{role} {name} cannot be built: {one_line(error)}") from error


def create_sized(
    name: str, role: str, request: dict[str, Any], model_kwargs: dict[str, Any], **kwargs: Any
) -> nn.Module:
    """:func:`create` for images as requested (``in_chans``, ``img_size``, ``input_size``).

    timm knows which architectures take a size at construction; ``model_kwargs`` are the architecture's own arguments.
    """
    check_name(name, role)
    try:
        sized = resolve_model_input_args(name, request, **model_kwargs)
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(f"{role} {name} cannot be built: {one_line(error)}") from error
    for resolved in ("model_name", "pretrained_cfg", "pretrained_model_args"):
        sized.pop(resolved, None)
    given = {key: value for key, value in kwargs.items() if value is not None}
    return create(name, role, **(sized | given))


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text without line breaks, cut at ``limit`` characters."""
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " ..."
