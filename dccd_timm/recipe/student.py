"""The student: architecture, first weights, size of its images, average of its weights."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from dccd_timm.recipe.option import INTERPOLATIONS, option, without

_model = partial(option, group="Model")
_drop = partial(option, group="Augmentation and regularization")
_NO_EMA = without("model_ema", "model_ema is off")


@dataclass(frozen=True)
class Network:
    """How any network is built and fed; training and validation have it in common."""

    num_classes: int | None = _model(
        None, "number of classes (default: the data set's, else the model's); 0 trains on images without labels", low=0
    )
    gp: str | None = _model(None, "global pool: fast, avg, max, avgmax, catavgmax")
    model_kwargs: dict[str, Any] = _model({}, "arguments of the architecture, key=value ...", resume="refused")
    img_size: int | None = _model(None, "image size in pixels (default: the model's)", low=1, measures=True)
    input_size: tuple[int, ...] | None = _model(
        None, "channels, height and width, e.g. 3 224 224", count=3, measures=True
    )
    crop_pct: float | None = _model(
        None, "part of the image that validation's centre crop keeps", low=0.001, measures=True
    )
    mean: tuple[float, ...] | None = _model(None, "mean of the normalisation, one value per channel", measures=True)
    std: tuple[float, ...] | None = _model(None, "standard deviation of the normalisation", low=1e-6, measures=True)
    interpolation: str = _model(
        "", "resize interpolation of validation (default: the model's)", choices=("", *INTERPOLATIONS), measures=True
    )
    channels_last: bool = _model(False, "keep images and weights in channels-last memory layout", resume="free")
    fast_norm: bool = _model(False, "timm's fast norm layers")


@dataclass(frozen=True)
class Student(Network):
    """The network that a training makes."""

    model: str = _model(
        "resnet50",
        "student: a timm name, hf-hub:owner/name or local-dir:path",
        published="model",
        resume="refused",
        usual=True,
    )
    pretrained: bool = _model(False, "start the student from its pretrained weights", resume="refused", usual=True)
    pretrained_path: str | None = _model(
        None, "load this file as if it were the pretrained weights", published="file", resume="refused"
    )
    initial_checkpoint: str = _model(
        "", "weights to start from, after the model was built", published="file", resume="refused"
    )
    in_chans: int = _model(None, "image channels (default: 3)", low=1)
    grad_checkpointing: bool = _model(False, "recompute activations in the backward pass to save memory")
    head_init_scale: float | None = _model(None, "factor on the classifier's initial weights", resume="refused")
    head_init_bias: float | None = _model(None, "initial bias of the classifier", resume="refused")
    bn_momentum: float | None = _model(None, "momentum of BatchNorm statistics")
    bn_eps: float | None = _model(None, "epsilon of BatchNorm")
    sync_bn: bool = _model(False, "BatchNorm statistics over all ranks")
    split_bn: bool = _model(False, "BatchNorm statistics of each view by itself in training")
    dist_bn: Literal["broadcast", "reduce", ""] = _model("reduce", "share BatchNorm statistics after each epoch")
    model_ema: bool = _model(False, "keep an exponential moving average of the student")
    model_ema_force_cpu: bool = _model(
        False, "keep the average on the CPU (it is then not validated)", no_effect=(_NO_EMA,)
    )
    model_ema_decay: float = _model(0.9998, "decay of the average", low=0, high=1, no_effect=(_NO_EMA,))
    model_ema_warmup: bool = _model(False, "let the decay grow in the beginning", no_effect=(_NO_EMA,))
    drop: float = _drop(0.0, "dropout rate", low=0, high=1)
    drop_path: float | None = _drop(None, "stochastic depth rate", low=0, high=1)
    drop_block: float | None = _drop(None, "drop block rate", low=0, high=1)
