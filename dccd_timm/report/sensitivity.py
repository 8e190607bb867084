"""How a student's answers follow its teacher's when an image changes a little: what the difference term trains."""

import io
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float, Float64
from PIL import Image
from torch import Tensor, nn

from dccd_timm.batch import Batch
from dccd_timm.models.timm_model import as_timm
from dccd_timm.report.schema import ChangeReport, Following, Sensitivity

# Held-out images that are changed, over all ranks, and how many a network sees at once
IMAGES, _CHUNK = 512, 64
_NOISE, _BRIGHTNESS, _JPEG_QUALITY = 0.02, 1.1, 90

Change = Callable[[Tensor], Tensor]


def minor_changes(seed: int) -> dict[str, Change]:
    """The minor changes by name: functions from pixels [N, C, H, W] in 0 ... 1 to such pixels.

    The noise is one picture of noise for all images, drawn from ``seed``, so that no number depends on batches.
    """
    return {
        "shift by 1 pixel": lambda pixels: _shift(pixels, right=1, down=0),
        "shift by 2 pixels": lambda pixels: _shift(pixels, right=0, down=2),
        "shift by 3 pixels": lambda pixels: _shift(pixels, right=-3, down=0),
        "noise": lambda pixels: (pixels + _NOISE * _noise(pixels, seed)).clamp(0, 1),
        "brightness": lambda pixels: (pixels * _BRIGHTNESS).clamp(0, 1),
        "JPEG": _jpeg,
    }


def _shift(pixels: Float[Tensor, "N C H W"], right: int, down: int) -> Float[Tensor, "N C H W"]:
    """Images moved by pixels; what comes into view repeats the edge."""
    height, width = pixels.shape[-2:]
    rows = (torch.arange(height, device=pixels.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=pixels.device) - right).clamp(0, width - 1)
    return pixels[..., rows, :][..., columns]


def _noise(pixels: Float[Tensor, "N C H W"], seed: int) -> Float[Tensor, "1 C H W"]:
    """A picture of normal noise."""
    return torch.randn(1, *pixels.shape[1:], generator=torch.Generator().manual_seed(seed)).to(pixels.device)


def _jpeg(pixels: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
    """Images after writing and reading as JPEG, channel by channel where they are not RGB."""
    stored = (pixels * 255).round().to(torch.uint8).cpu().numpy()
    if stored.shape[1] == 3:
        decoded = np.stack([_through_jpeg(image.transpose(1, 2, 0)).transpose(2, 0, 1) for image in stored])
    else:
        decoded = np.stack([[_through_jpeg(channel) for channel in image] for image in stored])
    return torch.from_numpy(decoded).to(pixels) / 255


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    """Bytes [H, W, 3] or [H, W] after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return np.asarray(Image.open(buffer))


def compare_changes(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Float64[Tensor, " 6"]:
    """Sums over images of what follows from logits [N, K] before and after a change.

    They are the squared norms of both differences and their product, each without its mean over classes, which no
    probability sees; then the images whose class changes for the student, for the teacher, and for both.
    """
    (mine, my_flips), (theirs, their_flips) = (_difference(*answers) for answers in (student, teacher))
    numbers = (mine.square(), theirs.square(), mine * theirs, my_flips, their_flips, my_flips & their_flips)
    return torch.stack([number.double().sum() for number in numbers])


def _difference(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The change of logits [N, K] without its mean over classes, and whether the class changed [N]."""
    difference = after.double() - before.double()
    return difference - difference.mean(1, keepdim=True), before.argmax(1) != after.argmax(1)


def follow(sums: Sequence[float], images: int) -> Following:
    """What the sums of :func:`compare_changes` over so many ``images`` say of a network beside its teacher."""
    mine, theirs, product, flips, teacher_flips, both = sums
    either = flips + teacher_flips - both
    return Following(
        correlation=_rounded(product / math.sqrt(mine * theirs)) if mine and theirs else None,
        norm_ratio=_rounded(math.sqrt(mine / theirs)) if theirs else None,
        flips=round(100 * flips / images, 2),
        flip_agreement=round(100 * both / either, 2) if either else None,
    )


def _rounded(value: float) -> float:
    return round(value, 4)


class SensitivityMeter:
    """Measures student and control beside the teacher on the first images of a pass over a split.

    The networks compute in float32, whatever the training did: in half precision small differences drown in rounding.
    Every rank takes part.

    Args:
        networks: teacher, student and, where there is one, control; without a teacher that has classes nothing is
            measured.
        mean, std: of the normalisation of the images that the networks take.
        seed: of the noise.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        mean: Sequence[float],
        std: Sequence[float],
        accelerator: Accelerator,
        seed: int,
    ) -> None:
        answering = {name: network for name, network in networks.items() if as_timm(network).num_classes}
        self.networks = answering if "teacher" in answering else {}
        self.accelerator = accelerator
        self.mean, self.std = (torch.tensor(tuple(v), device=accelerator.device).view(-1, 1, 1) for v in (mean, std))
        self.changes = minor_changes(seed)
        self.followers = [name for name in ("student", "control") if name in self.networks]
        self.clear()

    def clear(self) -> None:
        """Forget what was measured."""
        self.left = -(-IMAGES // self.accelerator.num_processes) if self.networks else 0
        self.count = 0
        self.sums = torch.zeros(len(self.followers), len(self.changes), 6, dtype=torch.float64)

    def watch(self, loader: Iterable[Batch]) -> "Watched":
        """The batches of ``loader``, of which the first images are measured on their way."""
        return Watched(loader, self)

    @torch.inference_mode()
    def update(self, images: Float[Tensor, "N C H W"]) -> None:
        """Measure as many of these normalised images as are still wanted."""
        images = images[: self.left].float()
        self.left -= len(images)
        self.count += len(images)
        for chunk in images.split(_CHUNK) if len(images) else ():
            pixels = (chunk * self.std + self.mean).clamp(0, 1)
            before = self._answers(pixels)
            for row, change in enumerate(self.changes.values()):
                after = self._answers(change(pixels))
                teacher = before["teacher"], after["teacher"]
                for line, name in enumerate(self.followers):
                    self.sums[line, row] += compare_changes((before[name], after[name]), teacher)

    def _answers(self, pixels: Float[Tensor, "N C H W"]) -> dict[str, Tensor]:
        """The logits [N, K] of every network."""
        images = (pixels - self.mean) / self.std
        with torch.autocast(images.device.type, enabled=False):
            return {name: network.eval()(images).float().cpu() for name, network in self.networks.items()}

    def result(self) -> Sensitivity | None:
        """What all ranks have measured; None without a teacher that has classes, and without images."""
        parts: list[tuple[int, Tensor]] = gather_object([(self.count, self.sums)])
        parts = [(count, sums) for count, sums in parts if count]  # a rank may have no image, or no teacher at hand
        if not self.networks or not parts:
            return None
        images = sum(count for count, _ in parts)
        sums = torch.stack([part for _, part in parts]).sum(0).tolist()
        rows = []
        for row, name in enumerate(self.changes):
            following = {network: follow(sums[line][row], images) for line, network in enumerate(self.followers)}
            flips = round(100 * sums[0][row][4] / images, 2)
            rows.append(ChangeReport(name=name, teacher_flips=flips, **following))
        return Sensitivity(images=images, changes=rows)


class Watched:
    """A loader whose first images a :class:`SensitivityMeter` measures; each pass begins anew."""

    def __init__(self, loader: Iterable[Batch], meter: SensitivityMeter) -> None:
        self.loader, self.meter = loader, meter

    def __len__(self) -> int:
        """Batches, 0 where the loader does not know."""
        return operator.length_hint(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.meter.clear()
        for batch in self.loader:
            if self.meter.left and len(batch.views):
                self.meter.update(batch.views[:, 0])
            yield batch
