"""Devices, precision and processes."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from dccd_timm.recipe.option import option, without

_device = partial(option, group="Device and precision")


@dataclass(frozen=True)
class Device:
    """What a process runs on; training and validation have it in common."""

    device: str = _device("cuda", "cpu forces the CPU; else accelerate takes the best device there is", resume="free")
    amp: bool = _device(False, "mixed precision")
    amp_dtype: Literal["float16", "bfloat16"] = _device(
        "float16", "lower precision of --amp", no_effect=(without("amp", "amp is off"),)
    )
    torchcompile: str | None = _device(
        None, "compile student and teacher, with this backend", const="inductor", resume="free"
    )
    torchcompile_mode: str | None = _device(
        None, "mode of torch.compile", no_effect=(without("torchcompile", "torchcompile is off"),), resume="free"
    )
    dist_timeout: float | None = _device(
        None,
        "seconds after which a rank that does not answer ends the run (default: --data-timeout and 5 minutes)",
        low=1,
        resume="free",
    )
    device_modules: tuple[str, ...] = _device(
        (),
        "module or .py file to import first, e.g. one that registers your own networks; repeatable",
        each="--import",
        resume="free",
        published="file",
    )
