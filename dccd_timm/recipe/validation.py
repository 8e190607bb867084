"""Every option of validate.py: timm's names and meanings, and a teacher to compare with."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dccd_timm.errors import UserError
from dccd_timm.recipe.data import Images, only_of
from dccd_timm.recipe.device import Device
from dccd_timm.recipe.distil import teacher_size
from dccd_timm.recipe.foreign import OLDER, ForeignFlag
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.option import option, without
from dccd_timm.recipe.parse import Grammar, Program, as_one_error
from dccd_timm.recipe.rules import ineffective
from dccd_timm.recipe.student import Network

_logger = logging.getLogger(__name__)
_data = partial(option, group="Data")
_model = partial(option, group="Model")
_run = partial(option, group="Run")
_NO_CHECKPOINT = without("checkpoint", "there is no --checkpoint")
_NO_TEACHER = without("teacher", "there is no --teacher")


@dataclass(frozen=True)
class Validation(Device, Network, Images):
    """All settings of one validation; made by :func:`load_validation`."""

    split: str = _data("validation", "split to read", usual=True)
    num_samples: int | None = _data(
        None, "images in the split, for streams that do not say", low=1, no_effect=(only_of("hfids", "wds", "tfds"),)
    )
    batch_size: int = _data(256, "images per rank and batch", "-b", low=1, usual=True)
    model: str = _model("", "a run's best/ folder, local-dir:path, hf-hub:owner/name or a timm name", "-m", usual=True)
    pretrained: bool = _model(False, "timm's pretrained weights (the default without --checkpoint)")
    checkpoint: str = _model("", "weights for a timm name: safetensors or timm checkpoint", usual=True)
    use_ema: bool = _model(False, "take the averaged weights of the checkpoint", no_effect=(_NO_CHECKPOINT,))
    teacher: str | None = _model(
        None, "also evaluate this teacher on the same images, and how often both agree", usual=True
    )
    teacher_checkpoint: str | None = _model(None, "weights of the teacher, for a timm name", no_effect=(_NO_TEACHER,))
    teacher_img_size: str = teacher_size("model", _model, _NO_TEACHER)
    in_chans: int | None = _model(None, "image channels (default: the model's)", low=1)
    use_train_size: bool = _model(False, "the training size, where the model names another one for tests")
    crop_mode: Literal["squash", "border", "center"] | None = _model(None, "crop mode")
    crop_border_pixels: int | None = _model(None, "pixels to crop from the border")
    test_pool: bool = _model(False, "pool at test time over larger maps")
    reparam: bool = _model(False, "fold re-parameterizable branches first")
    results_file: str = _run("", "file to write the results to", usual=True)
    results_format: Literal["csv", "json"] = _run("csv", "its format", no_effect=(without("results_file"),))


TAKEN_OVER = (
    ForeignFlag("log_freq", 10, 1, "a progress bar shows on a terminal, and the result at the end"),
    ForeignFlag("num_gpu", 1, 1, "launch one process per GPU: accelerate launch validate.py ..."),
)
REFUSED = (
    ForeignFlag("dataset_trust_remote_code", False, 0, "code from a data set is never run; convert it to parquet"),
    ForeignFlag("tf_preprocessing", False, 0, "it needs TensorFlow; set --crop-pct and --interpolation instead"),
    ForeignFlag("model_dtype", None, 1, "weights stay in float32; use --amp --amp-dtype bfloat16"),
    ForeignFlag("fuser", "", 1, "the jit fusers are gone from torch; use --torchcompile"),
    ForeignFlag("torchscript", False, 0, "torch.jit is not maintained any more; use --torchcompile"),
    *OLDER,
    ForeignFlag("retry", False, 0, "lower --batch-size yourself; the result does not depend on it"),
    ForeignFlag("real_labels", "", 1, "ImageNet's second labels need timm's own validate.py, which takes best/ too"),
    ForeignFlag("valid_labels", "", 1, "a part of the label space needs timm's own validate.py, which takes best/ too"),
    ForeignFlag("metrics_avg", None, 1, "top-1 and top-5 only; timm's own validate.py, which takes best/ too, has it"),
    ForeignFlag("naflex_loader", False, 0, "use a fixed --img-size"),
    ForeignFlag("naflex_max_seq_len", 576, 1, "use a fixed --img-size"),
)
GRAMMAR = Grammar(
    Validation,
    TAKEN_OVER,
    REFUSED,
    Program(
        prog="dccd-timm validate",
        description="Accuracy of a model on a data set; options and output are timm's. --teacher adds a comparison.",
        usage="%(prog)s [MODEL] [--option value ...]",
        positional="bare",
        examples=(
            "dccd-timm validate output/train/first --data-dir flowers",
            "dccd-timm validate hf-hub:owner/student --data-dir flowers --teacher local-dir:teacher",
            "dccd-timm validate --model resnet18.a1_in1k --dataset hfids/ILSVRC/imagenet-1k",
        ),
    ),
)


def load_validation(argv: Sequence[str]) -> Validation:
    """Parse validate.py's command line.

    An argument without a flag is the model when it is a run's folder, an exported one, or has a source prefix; else,
    as in timm, the data folder.

    Raises:
        UserError: unknown flags, wrong types, or no model.
    """
    errors: list[str] = []
    texts = GRAMMAR.parse(argv, errors)
    bare = texts.pop("bare")
    values = GRAMMAR.typed(texts, "--", errors)
    if errors:
        raise as_one_error(errors)
    if bare:
        is_model = ModelName.exported(bare).brings_weights
        key = "model" if is_model else "data_dir"
        if not is_model and key in values and not values.get("model"):
            raise UserError(f"{bare} holds no run and no exported model: it has no config.json, and no best/ with one")
        if key in values:
            raise UserError(f"{bare} and --{key.replace('_', '-')} {values[key]} name two of them: give one")
        values[key] = bare
    if not values.get("model"):
        raise UserError("no model: give a run's folder, local-dir:PATH, hf-hub:OWNER/NAME, or --model NAME")
    model = ModelName.exported(values["model"])
    values["model"] = model.timm_name
    if values.get("teacher"):
        values["teacher"] = ModelName.exported(values["teacher"]).timm_name
    if values.get("checkpoint") and model.brings_weights:
        raise UserError(f"--checkpoint goes with a plain timm name; {values['model']} brings its own weights")
    if errors := ineffective(Validation, values, values):
        raise as_one_error(errors)
    return Validation(**values)
