"""``--kd-teacher-probe``: a linear head on the teacher's features, trained once for a run, its resumes, its control."""

import dataclasses
import logging
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from dccd_timm.atomic import write_with
from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.data.collate import check_limit, no_image
from dccd_timm.data.sources import Source, open_split
from dccd_timm.engine.evaluate import kept_random_states
from dccd_timm.engine.probe import extract_features, train_probe
from dccd_timm.errors import UserError, logged_failure
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.probed import ProbedModel
from dccd_timm.models.weights import hash_weights
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig
from dccd_timm.run.classes import number_split
from dccd_timm.run.folder import kept_folders
from dccd_timm.run.versions import hash_of, version_of

_logger = logging.getLogger(__name__)

# In the folder of a run, or of its control, whichever trained it.
PROBE = "teacher-probe.safetensors"


@dataclasses.dataclass(frozen=True)
class Probe:
    """A linear head [K, C] with its bias [K], and a hash of all that it depends on."""

    weight: Tensor
    bias: Tensor
    key: str

    def on(self, model: nn.Module) -> ProbedModel:
        """The model without a head with this one."""
        return ProbedModel(model, self.weight, self.bias).eval().requires_grad_(False)


def find_probe(
    recipe: Recipe,
    train: Source,
    teacher: FrozenTeacher,
    data_config: DataConfig,
    num_classes: int,
    rank: Rank,
    accelerator: Accelerator,
    folder: Path | None,
) -> Probe:
    """The head of the teacher's features for the ``num_classes`` of ``train``: that of the run in ``folder`` or of its
    control, if it is for the same teacher and images, else a new one. The generators of random numbers stay as they
    are.

    Raises:
        UserError: when no image of the training split could be read, or more could not than may be skipped.
    """
    key = _key(recipe, train, teacher, data_config, num_classes) if accelerator.is_main_process else ""
    known = read_probe(folder, key) if folder and key else None
    shared: Probe | None = broadcast_object_list([known])[0]
    if shared is not None:
        return shared
    if accelerator.is_main_process:
        _logger.info("training a linear head on the teacher's features of %d images", train.num_samples)
    with kept_random_states(accelerator.device):
        # opened anew: its own reader must not move that of the training
        split = open_split(recipe, recipe.train_split, False, recipe.train_num_samples)
        number_split(split, train.names, f"split {recipe.train_split}", "the training")
        loader = build_eval_loader(recipe, split, data_config, num_classes, rank, recipe.validation_batch_size)
        features, target, skipped = extract_features(teacher, loader, accelerator, recipe.channels_last)
        check_read(recipe, features, skipped, accelerator)
        weight, bias = train_probe(features, target, num_classes, recipe.kd_teacher_probe, accelerator)
    return Probe(weight.cpu(), bias.cpu(), broadcast_object_list([key])[0])


def untrained_probe(
    recipe: Recipe, train: Source, teacher: FrozenTeacher, data_config: DataConfig, num_classes: int, *others: object
) -> Probe:
    """A head of the size that :func:`find_probe` gives, for a plan."""
    assert teacher.head_hidden_size is not None
    return Probe(torch.zeros(num_classes, teacher.head_hidden_size), torch.zeros(num_classes), "")


def check_read(recipe: Recipe, features: Tensor, skipped: dict[str, int], accelerator: Accelerator) -> None:
    """Check what all ranks could read.

    Raises:
        UserError: when a rank has no image, or more could not be read than may be skipped.
    """
    together = {name: number for part in gather_object([skipped]) for name, number in part.items()}
    check_limit(together, recipe.max_data_errors)
    if not all(gather_object([len(features)])):
        raise UserError(no_image("training split", next(iter(together), "")))


def write_probe(probe: Probe | None, folder: Path) -> None:
    """Keep a probe in the ``folder`` of its run, for resumes and the report."""
    if probe is None or read_probe(folder, probe.key) is not None:
        return
    tensors = {"weight": probe.weight.contiguous(), "bias": probe.bias.contiguous()}
    with logged_failure("a resume will train the teacher's linear head again", folder):
        write_with(folder / PROBE, lambda path: safetensors.torch.save_file(tensors, path, {"key": probe.key}))


def read_probe(folder: Path, key: str | None = None) -> Probe | None:
    """What the run in ``folder`` kept, or the first control; with a ``key`` only under that one."""
    for place in kept_folders(folder):
        try:
            with safetensors.safe_open(place / PROBE, framework="pt") as file:
                found = (file.metadata() or {}).get("key", "")
                if key in (None, found):
                    return Probe(file.get_tensor("weight"), file.get_tensor("bias"), found)
        except (OSError, safetensors.SafetensorError):
            continue
    return None


def _key(recipe: Recipe, train: Source, teacher: FrozenTeacher, data_config: DataConfig, num_classes: int) -> str:
    """A hash of all that the head depends on."""
    parts = [
        hash_weights(teacher),
        teacher.conversions(data_config["input_size"]),
        teacher.dtype,
        dict(data_config),
        (train.num_samples, train.names, train.columns),
        (recipe.dataset, recipe.dataset_revision, recipe.train_split, recipe.input_img_mode, num_classes),
        recipe.kd_teacher_probe,
        *map(version_of, train.paths()),
    ]
    return hash_of(parts)
