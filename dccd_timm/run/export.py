"""A student as a timm model on disk, proved to be the same when timm alone loads it."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import timm
import torch
from timm.data import ImageNetInfo
from timm.models import save_for_hf
from torch import Tensor, nn

from dccd_timm.atomic import replacing
from dccd_timm.errors import UserError, one_line
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.task.contract import plain_copy


def export(
    model: nn.Module, target: Path, data_config: DataConfig, label_names: list[str] | None, extra: Mapping[str, object]
) -> None:
    """Write a student as timm's save_for_hf does: model.safetensors and config.json with this run's preprocessing.

    ``timm.create_model("local-dir:<target>", pretrained=True)`` gives it back, which is tried before it replaces an
    earlier export in ``target``. ``extra`` goes to the top of config.json, where timm ignores it.

    Raises:
        UserError: when timm cannot build the same student again.
    """
    # contiguous: channels-last weights cannot be written
    plain = plain_copy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    plain.register_state_dict_post_hook(_separate_shared)
    config = {**extra, **_labels(label_names, plain), **_registered_by(plain)}
    with replacing(target) as folder:
        save_for_hf(plain, str(folder), model_config=config, data_config=dict(data_config), safe_serialization=True)
        _clean_config(folder / "config.json")
        _prove(plain, folder)


def check_own_network(model: nn.Module, data_config: DataConfig) -> None:
    """Try to export a network that its author registered, before it is trained.

    Raises:
        UserError: when timm cannot build the same network again.
    """
    if _registered_by(model):
        with tempfile.TemporaryDirectory(prefix="dccd-export-") as folder:
            export(model, Path(folder) / "student", data_config, None, {})


def _labels(names: list[str] | None, model: nn.Module) -> dict[str, object]:
    """Names of the classes for config.json, and their descriptions when they are WordNet's, as ImageNet's folders."""
    if not names or len(names) != model.num_classes:
        return {}
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return {"label_names": names}
    known = cast(dict[str, str], ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True))
    return {"label_names": names, "label_descriptions": {name: known[name] for name in names if name in known}}


def _registered_by(model: nn.Module) -> dict[str, object]:
    """The module of its author's that timm needs to know the architecture, for config.json; nothing for timm's own."""
    architecture = str(as_timm(model).pretrained_cfg.get("architecture"))
    if not timm.is_model(architecture):
        return {}
    module = timm.model_entrypoint(architecture).__module__
    return {} if module.split(".")[0] in ("timm", "dccd_timm") else {"registered_by": module}


def _clean_config(path: Path) -> None:
    """Take out of config.json what is only true of the architecture's default weights, and what breaks its readers."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("tag", "origin_url", "paper_ids", "paper_name", "notes", "license"):
        config["pretrained_cfg"].pop(key, None)
    # transformers would pass it twice; timm reads the one above it
    config.get("model_args", {}).pop("num_classes", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _separate_shared(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    """Copy weights that a network uses at several places, as CoaT does: safetensors refuses to write them."""
    seen: set[int] = set()
    for name, value in state.items():
        if value.data_ptr() in seen:
            state[name] = value.clone()
        seen.add(value.data_ptr())


@torch.no_grad()
def _prove(model: nn.Module, folder: Path) -> None:
    """Build the exported model with timm alone and compare its weights and its answer to a noise image."""
    own = bool(_registered_by(model))
    call = "timm.models.build_model_with_cfg(Network, NAME, pretrained, **kwargs)"
    hint = f"let the function that registers it return {call}"
    with torch.random.fork_rng(devices=[]):  # a new model draws weights, which must not move the run's generator
        try:
            reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        except Exception as error:
            if not own and not isinstance(error, RuntimeError | ValueError | TypeError):
                raise
            line = f"timm cannot build the student again from its config.json: {one_line(error)}"
            raise UserError(f"{line}; {hint}" if own else line) from error
        image = torch.randn(1, *cast(tuple[int, ...], as_timm(reloaded).pretrained_cfg["input_size"]))
    weights, expected = reloaded.state_dict(), model.state_dict()
    same = all(name in weights and _equal(value, weights[name].to(value.dtype)) for name, value in expected.items())
    if not same and own:
        raise UserError(f"timm does not load the student's weights again: {hint}")
    if not same or not _equal(model(image), reloaded(image)):
        raise UserError("timm builds another student from config.json: an argument of its architecture is not kept")


def _equal(first: Tensor, second: Tensor) -> bool:
    """Bitwise the same, NaN included: after few updates a network with BatchNorm may overflow on a noise image."""
    return first.shape == second.shape and torch.allclose(first, second, rtol=0, atol=0, equal_nan=True)
