"""GPUs that a plan knows: memory, and operations a second as their makers' data sheets say them."""

import difflib
import re
from dataclasses import dataclass

import torch

from dccd_timm.errors import UserError

_GIB = 2**30


@dataclass(frozen=True)
class Device:
    """A GPU, or the CPU, of which neither memory nor speed is known.

    ``memory`` is what programs can have, in bytes; ``lower`` and ``float32`` are dense operations a second in half
    precision and in float32, which uses TF32 where there is any.
    """

    name: str
    memory: int | None = None
    lower: float | None = None
    float32: float | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is no CPU."""
        return self.name != "cpu"


# Name, GiB that torch reports, dense TFLOP/s in float16 and bfloat16, and in TF32 or else float32
_TABLE = (
    ("B200 180GB", 178.4, 2250, 1100),
    ("H200 141GB", 139.8, 989, 495),
    ("H100 80GB", 79.1, 989, 495),
    ("H100 PCIe 80GB", 79.1, 756, 378),
    ("A100 80GB", 79.1, 312, 156),
    ("A100 40GB", 39.4, 312, 156),
    ("L40S 48GB", 44.4, 362, 183),
    ("L4 24GB", 22.0, 121, 60),
    ("A10 24GB", 22.0, 125, 62),
    ("V100 32GB", 31.7, 125, 15.7),
    ("V100 16GB", 15.8, 125, 15.7),
    ("T4 16GB", 14.6, 65, 8.1),
    ("RTX 4090 24GB", 23.5, 165, 83),
    ("RTX 3090 24GB", 23.6, 71, 36),
)  # fmt: skip
DEVICES = {name: Device(name, int(gib * _GIB), 1e12 * lower, 1e12 * full) for name, gib, lower, full in _TABLE}
_DEFAULT = "H100 80GB"


def find_device(name: str | None) -> Device:
    """The device of this ``name``; without one the GPU of this machine, else an H100.

    Raises:
        UserError: for a GPU that is not known.
    """
    if name is None:
        return _gpu_here() or DEVICES[_DEFAULT]
    if name.lower() == "cpu":
        return Device("cpu")
    fitting = [device for known, device in DEVICES.items() if _words(name) <= _words(known)]
    if not fitting:
        near = difflib.get_close_matches(name.upper(), DEVICES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"--plan-device {name} is not known: {hint}There are cpu, {', '.join(DEVICES)}")
    return fitting[0]


def _gpu_here() -> Device | None:
    """The GPU of this machine with its own memory; its speed where it is known."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    words = _words(properties.name)
    known = next((device for name, device in DEVICES.items() if _words(name.rsplit(" ", 1)[0]) <= words), None)
    if known is None:
        return Device(properties.name, properties.total_memory)
    return Device(properties.name, properties.total_memory, known.lower, known.float32)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]*\d+[a-z]*|[a-z]+", name.lower().replace(" gb", "gb")))
