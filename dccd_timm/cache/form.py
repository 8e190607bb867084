"""In which form answers are kept: from a teacher's logits and maps to tensors of one row an image, and back.

Axes: B images, V views of each, K classes, C channels; the teacher's own answers are view-major, V * B rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dccd_timm.errors import UserError

_INT16 = 2**15
# Of each view a sketch, and of each image a seed, an epoch and a hash
SKETCH_BYTES, ROW_BYTES = 16, 24
Rows = dict[str, Tensor]  # by the name of a part, [B, V, ...], on the CPU


@dataclass(frozen=True)
class Form:
    """How answers are kept.

    Args:
        logits: ``float16``, ``float32``, or a number of classes: the highest logits in float16, and the value that all
            others share.
        temperature: with a number of classes, the one at which the others' softmax mass is that of the teacher; else 0.
        classes: of the teacher.
        views: of an image.
        stages: of the teacher whose maps are kept.
        maps: channels, height and width of each map; they are pooled to this size.
    """

    logits: str
    temperature: float
    classes: int
    views: int
    stages: tuple[int, ...] = ()
    maps: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def from_json(cls, text: str) -> "Form":
        """The form whose ``dataclasses.asdict`` is the JSON in ``text``."""
        values = json.loads(text)
        maps = tuple((int(c), int(h), int(w)) for c, h, w in values["maps"])
        return cls(**(values | {"stages": tuple(values["stages"]), "maps": maps}))

    @property
    def highest(self) -> int:
        """Logits that are kept of each view, 0 for all."""
        return int(self.logits) if self.logits.isdecimal() else 0

    @property
    def dtype(self) -> torch.dtype:
        """Precision of logits and maps."""
        return torch.float32 if self.logits == "float32" else torch.float16

    @property
    def image_bytes(self) -> int:
        """Bytes on the disk of the answers to all views of one image."""
        number = 2 if self.dtype == torch.float16 else 4
        logits = self.highest * (number + (2 if self.classes < _INT16 else 4)) + 4 if self.highest else None
        view = (logits or self.classes * number) + sum(c * h * w * number for c, h, w in self.maps)
        return self.views * (view + SKETCH_BYTES) + ROW_BYTES

    def pack(self, logits: Tensor, maps: Sequence[Tensor]) -> Rows:
        """Rows from the teacher's logits [V * B, K] and its maps [V * B, C, H, W], pooled already.

        Raises:
            UserError: for answers that float16 does not hold.
        """
        rows = self._pack_highest(logits.float()) if self.highest else {"logits": self._rounded(logits)}
        rows |= {f"map{number}": self._rounded(values) for number, values in enumerate(maps)}
        return {name: _by_image(values, self.views).cpu().contiguous() for name, values in rows.items()}

    def unpack(self, rows: Rows, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Logits [V * B, K] and maps [V * B, C, H, W] on the device, in float32."""
        parts = {name: _by_view(values.to(device, non_blocking=True)) for name, values in rows.items()}
        if self.highest:
            logits = parts["rest"][:, None].expand(-1, self.classes).clone()
            logits.scatter_(1, parts["classes"].long(), parts["highest"].float())
        else:
            logits = parts["logits"].float()
        return logits, [parts[f"map{number}"].float() for number in range(len(self.maps))]

    def _pack_highest(self, logits: Tensor) -> Rows:
        highest, classes = logits.topk(self.highest, dim=1)
        rest = logits.scatter(1, classes, -torch.inf) / self.temperature
        others = torch.log(torch.tensor(float(self.classes - self.highest)))
        value = self.temperature * (rest.logsumexp(dim=1) - others.to(rest.device))
        number = torch.int16 if self.classes < _INT16 else torch.int32
        return {"highest": self._rounded(highest), "classes": classes.to(number), "rest": value}

    def _rounded(self, values: Tensor) -> Tensor:
        rounded = values.to(self.dtype)
        if bool((rounded.isinf() & values.isfinite()).any()):
            raise UserError("the teacher's answers are larger than float16 holds: set --kd-cache-logits float32")
        return rounded


def _by_image(values: Tensor, views: int) -> Tensor:
    """[V * B, ...] to [B, V, ...]."""
    parted: Tensor = values.unflatten(0, (views, -1))
    return parted.transpose(0, 1)


def _by_view(rows: Tensor) -> Tensor:
    """[B, V, ...] to [V * B, ...]."""
    return rows.transpose(0, 1).flatten(0, 1)
