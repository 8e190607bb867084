"""Every word of validate.py: timm's names and meanings, and a teacher to compare with."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from dccd_timm.errors import UserError
from dccd_timm.recipe.fields import Recipe, option
from dccd_timm.recipe.foreign import ForeignFlag
from dccd_timm.recipe.model_name import ModelName
from dccd_timm.recipe.parse import Grammar, joined

_logger = logging.getLogger(__name__)
_Group = Callable[..., Any]
_data: _Group = partial(option, group="Data")
_model: _Group = partial(option, group="Model")
_run: _Group = partial(option, group="Run")


def _same(name: str) -> Any:
    """A word that training has too, with its meaning and default."""
    known = Recipe.__dataclass_fields__[name]
    return field(default=known.default, metadata=known.metadata)


@dataclass(frozen=True)
class Validation:
    """All settings of one validation; made by :func:`load_validation`."""

    # fmt: off
    data_dir: str | None = _same("data_dir")
    dataset: str = _same("dataset")
    split: str = _data("validation", "split to read")
    num_samples: int | None = _data(None, "images in the split, for streams that do not say", low=1)
    dataset_config: str | None = _same("dataset_config")
    dataset_revision: str | None = _same("dataset_revision")
    dataset_download: bool = _same("dataset_download")
    class_map: str = _same("class_map")
    input_img_mode: str | None = _same("input_img_mode")
    input_key: str | None = _same("input_key")
    target_key: str | None = _same("target_key")
    data_errors: str = _same("data_errors")
    max_data_errors: int = _same("max_data_errors")
    data_timeout: float = _same("data_timeout")
    workers: int = _same("workers")
    batch_size: int = _data(256, "images per rank and batch", "-b", low=1)
    no_prefetcher: bool = _same("no_prefetcher")
    pin_mem: bool = _same("pin_mem")

    model: str = _model("", "a run's best/ folder, local-dir:path, hf-hub:owner/name or a timm name", "-m")
    pretrained: bool = _model(False, "timm's pretrained weights (the default without --checkpoint)")
    checkpoint: str = _model("", "weights for a timm name: safetensors or timm checkpoint")
    use_ema: bool = _model(False, "take the averaged weights of the checkpoint")
    teacher: str | None = _model(None, "also judge this teacher on the same images, and how often both agree")
    teacher_checkpoint: str | None = _model(None, "weights of the teacher, for a timm name")
    num_classes: int | None = _model(None, "number of classes", low=1)
    gp: str | None = _model(None, "global pool: fast, avg, max, avgmax, catavgmax")
    in_chans: int | None = _model(None, "image channels (default: the model's)", low=1)
    model_kwargs: dict[str, Any] = _model({}, "arguments of the architecture, key=value ...")
    img_size: int | None = _model(None, "image size in pixels (default: the model's)", low=1)
    input_size: tuple[int, ...] | None = _model(None, "channels, height and width, e.g. 3 224 224", count=3)
    use_train_size: bool = _model(False, "the training size, where the model names another one for tests")
    crop_pct: float | None = _model(None, "part of the image that the centre crop keeps")
    crop_mode: str | None = _model(None, "crop mode", choices=("squash", "border", "center"))
    crop_border_pixels: int | None = _model(None, "pixels to crop from the border")
    mean: tuple[float, ...] | None = _model(None, "mean of the normalisation")
    std: tuple[float, ...] | None = _model(None, "standard deviation of the normalisation")
    interpolation: str = _model("", "resize interpolation (default: the model's)")
    test_pool: bool = _model(False, "pool at test time over larger maps")
    reparam: bool = _model(False, "fold re-parameterizable branches first")

    seed: int = _run(42, "random seed")
    results_file: str = _run("", "file to write the results to")
    results_format: str = _run("csv", "its format", choices=("csv", "json"))
    device: str = _run("cuda", "cpu forces the CPU; else accelerate takes the best device there is")
    channels_last: bool = _run(False, "channels-last memory layout")
    amp: bool = _run(False, "mixed precision")
    amp_dtype: str = _run("float16", "lower precision of --amp", choices=("float16", "bfloat16"))
    fast_norm: bool = _run(False, "timm's fast norm layers")
    torchcompile: str | None = _run(None, "compile the model, with this backend", const="inductor")
    torchcompile_mode: str | None = _run(None, "mode of torch.compile")
    # fmt: on

    def as_recipe(self, in_chans: int = 3) -> Recipe:
        """The words that both programs know, for the parts that read a Recipe: data and accelerate."""
        shared = {f.name for f in fields(self)} & {f.name for f in fields(Recipe)} - {"in_chans"}
        words = {name: getattr(self, name) for name in shared}
        return Recipe(**words, val_split=self.split, val_num_samples=self.num_samples, in_chans=in_chans, dccd_views=1)


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
    ForeignFlag("aot_autograd", False, 0, "functorch's compiler is gone from torch; use --torchcompile"),
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
    prog="dccd-validate",
    description="Accuracy of a model on a data set; flags and output are timm's. --teacher adds a comparison.",
    positional="place",
    usage="%(prog)s [MODEL] [--flag value ...]",
)


def load_validation(argv: Sequence[str]) -> Validation:
    """Parse validate.py's command line.

    A bare word is the model when it is a run's folder, an exported one, or has a source prefix; else, as in timm, the
    data folder.

    Raises:
        UserError: unknown words, wrong types, or no model.
    """
    errors: list[str] = []
    words = GRAMMAR.parse(GRAMMAR.parser(), argv, errors)
    place = words.pop("place")
    values = GRAMMAR.typed(words, "--", errors)
    if errors:
        raise joined(errors)
    if place:
        is_model = ModelName.exported(place).brings_weights
        key = "model" if is_model else "data_dir"
        if key in values:
            raise UserError(f"{place} and --{key.replace('_', '-')} {values[key]} name two of them: give one")
        values[key] = place
    if not values.get("model"):
        raise UserError("no model: give a run's folder, local-dir:PATH, hf-hub:OWNER/NAME, or --model NAME")
    model = ModelName.exported(values["model"])
    values["model"] = model.timm_name
    if values.get("teacher"):
        values["teacher"] = ModelName.exported(values["teacher"]).timm_name
    if values.get("checkpoint") and model.brings_weights:
        raise UserError(f"--checkpoint goes with a plain timm name; {values['model']} brings its own weights")
    if values.get("teacher_checkpoint") and not values.get("teacher"):
        raise UserError("--teacher-checkpoint has no effect without --teacher NAME")
    if values.get("use_ema") and not values.get("checkpoint"):
        raise UserError("--use-ema has no effect without --checkpoint")
    return Validation(**values)
