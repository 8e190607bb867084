"""Class names that two sides know are compared: the splits', the networks', those of a run that is resumed."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from dccd_timm.data.sources import Source
from dccd_timm.data.sources.folders import shortened
from dccd_timm.errors import UserError
from dccd_timm.models.classes import class_names, reorder_classes
from dccd_timm.models.load import checkpoint_file
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import Student

_logger = logging.getLogger(__name__)


def number_split(split: Source, names: Sequence[str] | None, what: str, whose: str) -> None:
    """Number the classes of a split (``what``) as in ``names``, those of ``whose``; one line says what differs.

    Raises:
        UserError: for classes that ``names`` does not have; it lists them.
    """
    own = split.names
    if not own or not names or own == list(names):
        return
    extra, missing = [n for n in own if n not in names], [n for n in names if n not in own]
    if extra:
        raise UserError(
            f"{what} has classes that {whose} does not have: {shortened(extra)}"
            + (f"; and none of its classes {shortened(missing)}" if missing else "")
            + ": give a class the same name everywhere, or leave its images out"
        )
    if missing:
        _logger.warning(
            "%s has no images of %d of the %d classes of %s: %s",
            what, len(missing), len(names), whose, shortened(missing),
        )  # fmt: skip
    if own != [name for name in names if name in own]:
        _logger.warning("%s has its classes in another order than %s, whose numbers it gets", what, whose)
    split.renumber(list(names))


def number_split_for(model: nn.Module, names: list[str] | None, split: Source, what: str) -> None:
    """Number the classes of a split as a ``model`` answers, whose class ``names`` may be unknown.

    Raises:
        UserError: for classes that the model does not have.
    """
    own, num_classes = split.names, as_timm(model).num_classes
    if own and names is None and all(re.fullmatch(r"n\d{8}", name) for name in own):  # ImageNet's folders, or some
        subset = infer_imagenet_subset(model)
        names = ImageNetInfo(subset).label_names() if subset else None
    if own and names and len(own) == len(names) and not set(own) & set(names):  # the same classes in another language
        _logger.warning(
            "%s and the model name their classes differently (%s; %s): they are taken to stand in the same order",
            what, shortened(own), shortened(names),
        )  # fmt: skip
    elif own and names is None and len(own) != num_classes:
        _logger.warning(
            "the model has %d classes without names, %s has %d (%s): they are taken for the model's first",
            num_classes, what, len(own), shortened(own),
        )  # fmt: skip
    else:
        number_split(split, names, what, "the model")


def number_network(
    model: nn.Module, theirs: list[str] | None, names: Sequence[str] | None, role: str, learns: bool = False
) -> None:
    """Let a network answer in the order of ``names``, the data set's classes, where it brings names (``theirs``); one
    line says what differs.

    Raises:
        UserError: when some names are the same and stand elsewhere, so that neither order nor names fit, unless the
            network ``learns`` new classes.
    """
    if not theirs or not names or theirs[: len(names)] == list(names):
        return
    if sorted(theirs) == sorted(names) and len(set(names)) == len(names):
        reorder_classes(model, [theirs.index(name) for name in names], role)
        _logger.warning("%s has its classes in another order than the data set: its answers are reordered", role)
        return
    others = f"{shortened(n for n in theirs if n not in names)}; the data set has {_missing(names, theirs)}"
    if not learns and any(name in theirs and theirs.index(name) != index for index, name in enumerate(names)):
        raise UserError(f"{role} has other classes than the data set, and in another order: it has {others}")
    _logger.warning("%s has other classes than the data set, by their names: it has %s", role, others)


def number_student(options: Student, model: nn.Module, names: Sequence[str] | None) -> None:
    """Let a student that starts from a trained classifier answer in the order of ``names``, and forget its old ones."""
    checkpoint = checkpoint_file(options.initial_checkpoint, "--initial-checkpoint") or options.pretrained_path
    if checkpoint or options.pretrained:
        number_network(model, class_names(model, checkpoint), names, f"student {options.model}", learns=True)
    old = as_timm(model).pretrained_cfg
    as_timm(model).pretrained_cfg = {k: v for k, v in old.items() if k not in ("label_names", "label_descriptions")}


def number_resumed(train: Source, val: Source | None, names: Sequence[str] | None, folder: Path) -> None:
    """Number the classes of both splits as the run in ``folder`` did, whose classes are ``names``.

    Raises:
        UserError: for classes that it did not have, and for those without images to train.
    """
    missing = [name for name in names or () if name not in (train.names or names or ())]
    if missing and not set(train.names or ()) - set(names or ()):
        raise UserError(
            f"the training split has no images of {shortened(missing)}, which the run in {folder} learned: it would"
            " forget what it learned of them; bring them back, or start a new run"
        )
    number_split(train, names, "the training split", f"the run in {folder}")
    if val is not None:
        number_split(val, train.names, "the validation split", f"the run in {folder}")


def _missing(names: Sequence[str], theirs: Sequence[str]) -> str:
    return shortened(name for name in names if name not in theirs) or "none of them"
