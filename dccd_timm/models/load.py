"""How models are made by timm, each failure as one line with its cause."""

import difflib
import functools
import json
import logging
import os
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from timm.models import get_pretrained_cfg, parse_model_name, resolve_model_input_args, split_model_name_tag
from torch import nn

from dccd_timm.errors import UserError, one_line
from dccd_timm.models.timm_model import as_timm
from dccd_timm.models.weights import DAMAGED, check_weights
from dccd_timm.network import announced, check_reachable, is_transient
from dccd_timm.recipe.folders import check_model_folder
from dccd_timm.recipe.model_name import ModelName

_logger = logging.getLogger(__name__)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def check_name(name: str, role: str) -> None:
    """Refuse a name that timm does not know, with the nearest one that it does.

    Raises:
        UserError: unknown architecture or source.
    """
    folder = f"{role}: {name} is a folder: local-dir:{name} is a model in it, --data-dir {name} its images"
    try:
        parse_model_name(name)  # timm says itself what is wrong with the source
    except ValueError as error:
        raise UserError(folder if Path(name).is_dir() else f"{role}: {error}") from None
    parsed = ModelName.parse(name)
    if parsed.source == "hf-hub":
        with announced(f"{role} {name}"):
            _ask_hub(parsed, role)
    elif parsed.source == "local-dir":
        check_model_folder(name, role)
        _check_config(Path(parsed.place) / "config.json", f"{role} {name}")
    if parsed.source != "timm":
        return
    architecture = split_model_name_tag(parsed.place)[0]
    if not timm.is_model(architecture):
        if Path(name).is_dir():
            raise UserError(folder)
        near = difflib.get_close_matches(architecture, timm.list_models(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else "timm.list_models() lists them all"
        raise UserError(f"{role}: timm has no model {architecture!r}; {hint}; a network of your own needs --import")


def create(name: str, role: str, **kwargs: Any) -> nn.Module:
    """``timm.create_model(name, **kwargs)`` for the student or the teacher, whichever ``role`` names.

    Raises:
        UserError: unknown name, wrong arguments, missing weights or no network; one line with the cause.
    """
    check_name(name, role)
    try:
        with _waiting(name, role, bool(kwargs.get("pretrained"))):
            if kwargs.get("pretrained") and not kwargs.get("pretrained_cfg_overlay") and _must_download(name):
                check_reachable(f"{role} {name}")
            model: object = timm.create_model(name, **kwargs)
        return _check_classifier(model, f"{role} {name}")
    except UserError:
        raise
    except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
        raise UserError(f"{role} {name}: its weights could not be downloaded: {_cause(error)}") from error
    except DAMAGED as error:
        for path in _weights_of(ModelName.parse(name)):
            check_weights(path, f"{role} {name}: {path.name}")
        raise UserError(f"{role} {name}: its weights cannot be read: {one_line(error)}") from error
    except FileNotFoundError as error:
        raise UserError(f"{role} {name}: {error.filename or one_line(error)} does not exist") from error
    except Exception as error:  # an architecture's own code, with any arguments, may raise any kind
        if kwargs.get("checkpoint_path") and "loading state_dict" in str(error):
            raise UserError(f"{kwargs['checkpoint_path']} does not fit {role} {name}: {one_line(error)}") from error
        raise UserError(f"{role} {name} cannot be built: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """An error's text; with its kind and place where the text alone says little."""
    if isinstance(error, RuntimeError | ValueError | TypeError) and str(error):
        return one_line(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {place.name} ({Path(place.filename).name}:{place.lineno}): {one_line(error)}"


def _check_classifier(model: object, what: str) -> nn.Module:
    """Refuse what a function of a user's own may return: no network, or one that lacks what timm's classifiers have."""
    if not isinstance(model, nn.Module):
        raise UserError(f"{what} cannot be built: its function returns {type(model).__name__} and no network")
    cfg = getattr(model, "pretrained_cfg", None)
    if not isinstance(cfg, dict) or not {"input_size", "mean", "std", "architecture"} <= cfg.keys():
        raise UserError(
            f"{what} has no pretrained_cfg, from which its preprocessing is read: let its function return"
            " timm.models.build_model_with_cfg(Network, name, pretrained, **kwargs)"
        )
    if not isinstance(getattr(model, "num_classes", None), int):
        raise UserError(f"{what} has no num_classes: set self.num_classes in its __init__, as timm's networks do")
    return model


def _waiting(name: str, role: str, pretrained: bool) -> AbstractContextManager[None]:
    """A line after some seconds when the Hub has the weights."""
    from_hub = ModelName.parse(name).source == "hf-hub" or (pretrained and ModelName.parse(name).source == "timm")
    return announced(f"{role} {name}") if from_hub else nullcontext()


def create_sized(
    name: str, role: str, request: dict[str, object], model_kwargs: dict[str, object], **kwargs: object
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
    for key in model_kwargs.keys() & given.keys():
        if model_kwargs[key] != given[key]:
            raise UserError(f"--model-kwargs {key}={model_kwargs[key]} contradicts {key} {given[key]}: drop it there")
    return create(name, role, **(sized | given))


def checkpoint_file(name: str, role: str) -> str:
    """The file of weights of ``hf-hub:owner/name``, ``local-dir:path``, or a path, which stays as it is; the first two
    have their config.json beside it.

    Raises:
        UserError: when it does not exist, or the Hub cannot be asked and the cache is empty.
    """
    parsed = ModelName.parse(name)
    path = str(Path(parsed.place) / "model.safetensors") if parsed.source == "local-dir" else name
    if parsed.source == "hf-hub":
        try:
            with announced(f"{role} {name}"):
                _ask_hub(parsed, role)
                hf_hub_download(parsed.place, "config.json", revision=parsed.revision)
                path = hf_hub_download(parsed.place, "model.safetensors", revision=parsed.revision)
        except (HfHubHTTPError, LocalEntryNotFoundError, ConnectionError) as error:
            raise UserError(f"{role} {name}: its weights could not be downloaded: {_cause(error)}") from error
    if name and not Path(path).is_file():
        raise UserError(f"{role} {path} does not exist")
    if name:
        check_weights(Path(path), f"{role} {name}")
    return path


def origin(name: str, model: nn.Module, pretrained: bool = True) -> dict[str, str]:
    """Where a model's weights come from: its name, and ``hub_id``, ``commit`` and ``license`` where they are known."""
    parsed = ModelName.parse(name)
    cfg = as_timm(model).pretrained_cfg
    found: dict[str, object] = {}
    if parsed.source == "hf-hub":
        commit = _cached_commit(parsed.place, parsed.revision)
        found = {"hub_id": parsed.place, "commit": commit, "license": cfg.get("license")}
    elif parsed.source == "timm" and pretrained and cfg.get("hf_hub_id"):
        architecture = split_model_name_tag(name)[0]
        full = f"{architecture}.{cfg['tag']}" if cfg.get("tag") else architecture
        hub_id = f"timm/{full}" if cfg["hf_hub_id"] == "timm/" else cfg["hf_hub_id"]
        found = {"hub_id": hub_id, "license": cfg.get("license")}
    shown = cfg.get("architecture", name) if parsed.source == "local-dir" else parsed.place
    known = {"name": found.get("hub_id") or shown} | {key: value for key, value in found.items() if value}
    return {key: str(value) for key, value in known.items()}


@functools.cache
def _ask_hub(model: ModelName, role: str) -> None:
    """Ask the Hub whether it has the model; warn when it cannot be asked: the client silently takes an old copy.

    Raises:
        UserError: for an id or revision that is not there.
    """
    name, revision = f"{role} {model.timm_name}", model.revision
    try:
        known = _cached_commit(model.place, revision)
        get_hf_file_metadata(hf_hub_url(model.place, "config.json", revision=revision))
        _check_config(Path(hf_hub_download(model.place, "config.json", revision=revision)), name)
        return
    except UserError:
        raise
    except HFValidationError as error:
        raise UserError(f"{name}: {one_line(error)}") from None
    except EntryNotFoundError as error:
        raise UserError(f"{name} is no timm model: it has no config.json") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name}: it has no branch, tag or commit {revision}") from error
    except GatedRepoError as error:
        if known is None:
            raise UserError(f"{name} cannot be read: {_cause(error)}") from error
        cause = "it is gated, and the token has no access"
    except RepositoryNotFoundError as error:
        if known is None:
            raise UserError(
                f"{name} does not exist, or is private: check the name, and run `hf auth login` or set HF_TOKEN"
            ) from error
        cause = "it is gone, or the token may not read it"
    except Exception as error:  # the HTTP client's errors, which differ between its versions
        cause = one_line(error, 120)
        if known is None and is_transient(error):
            check_reachable(name)
    if known and known != revision and os.environ.get("RANK", "0") == "0":
        _logger.warning(
            "%s: the Hub could not be asked (%s): the copy in the cache is used, commit %s", name, cause, known[:12]
        )
    copy = try_to_load_from_cache(model.place, "config.json", revision=revision)
    if isinstance(copy, str):
        _check_config(Path(copy), name)


def _check_config(path: Path, name: str) -> None:
    """Refuse a model of another library, by its config.json."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: its config.json cannot be read: {one_line(error)}") from error
    if isinstance(config, dict) and "architecture" in config:
        architecture = str(config["architecture"])
        if not timm.is_model(architecture):
            file = f"{config['registered_by']}, " if config.get("registered_by") else "the module or .py file "
            raise UserError(f"{name}: timm has no model {architecture!r}: give --import {file}that registers it")
        return
    if isinstance(config, dict) and ("model_type" in config or "architectures" in config):
        kind = (config.get("architectures") or [config.get("model_type")])[0]
        raise UserError(
            f"{name} is a model of transformers ({kind}), not of timm: choose one of"
            " https://huggingface.co/models?library=timm"
        )
    raise UserError(f"{name} is no timm model: its config.json names no architecture")


def _cause(error: BaseException) -> str:
    """Why the Hub did not give a file, and what helps."""
    said = " ".join(str(getattr(error, "server_message", None) or "").split()).rstrip(".")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        reason = said or "its owner grants access"
        return f"it is gated ({reason}): ask for access on its page, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return "it has no model.safetensors"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the cache has no copy: unset it, or download the model first"
    if status == 401:
        return "the token is not valid: run `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"the Hub refuses it ({said or 'no reason given'})"
    return f"{one_line(error)}; check the name and the network"


def _weights_of(model: ModelName) -> list[Path]:
    """The files of weights of a model that are on this machine."""
    if model.source == "local-dir":
        found: list[object] = [str(Path(model.place) / name) for name in _WEIGHTS]
    else:
        found = [try_to_load_from_cache(model.place, name, revision=model.revision) for name in _WEIGHTS]
    return [Path(path) for path in found if isinstance(path, str) and Path(path).is_file()]


def _must_download(name: str) -> bool:
    """Whether the pretrained weights of a timm name are on the Hub and not in the cache."""
    cfg = get_pretrained_cfg(name) if ModelName.parse(name).source == "timm" else None
    if cfg is None or not cfg.hf_hub_id or cfg.file:
        return False
    files = [cfg.hf_hub_filename] if cfg.hf_hub_filename else list(_WEIGHTS)
    return not any(isinstance(try_to_load_from_cache(cfg.hf_hub_id, file), str) for file in files)


def _cached_commit(repo_id: str, revision: str | None) -> str | None:
    """The commit of the copy in the cache, None without one."""
    path = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None
