"""The numbers of a plan, and how they are printed."""

import dataclasses
import json
from dataclasses import dataclass, field

from dccd_timm.engine.timing import readable_seconds

_GIB = 2**30


@dataclass(kw_only=True)
class Network:
    """A network: parameters, and billions of multiply-accumulates for one image where they can be counted."""

    name: str
    parameters: int
    gmacs: float | None


@dataclass(kw_only=True)
class Fit:
    """How the step's memory compares with a GPU's: ``usable`` bytes of its ``memory``, the largest batch within them,
    and where the batch is larger, a smaller one with the accumulation that keeps the update."""

    memory: int
    usable: int
    fits: bool
    largest_batch: int
    batch_size: int | None = None
    grad_accum_steps: int | None = None


@dataclass(kw_only=True)
class Time:
    """Seconds that an update takes, and hours of all of them, at a share of the device's peak."""

    share: float
    update_seconds: float
    hours: float


@dataclass(kw_only=True)
class Loading:
    """Images a second that one core gives here, the hours in which ``workers`` such cores give those of the whole
    training, and what each rank takes at half of the device's peak, with the number of workers that give it."""

    per_core: float
    workers: int
    hours: float
    needed: float | None
    needed_workers: int | None


@dataclass(kw_only=True)
class Plan:
    """What a training takes. Bytes and operations are those of one rank; None where they are not known.

    ``controls`` are methods of --dccd-control, each a training of its own that is not counted.
    ``memory`` is that of the peak by part, ``network_bytes`` what a rank sends in an update, ``flops`` are those of a
    batch forward and backward with its views, ``state_bytes`` one of ``states`` that are kept, ``export_bytes`` those
    of best/ and last/.
    """

    device: str
    ranks: int
    precision: str
    student: Network
    teacher: Network | None
    images: int
    classes: int
    batch_size: int
    views: int
    grad_accum_steps: int
    updates_per_epoch: int
    epochs: int
    controls: tuple[str, ...] = ()
    memory: dict[str, int] | None
    fit: Fit | None
    network_bytes: int
    flops: int | None
    times: list[Time] = field(default_factory=list)
    loading: Loading
    state_bytes: int | None
    states: int
    export_bytes: int

    def json(self) -> str:
        """For programs; sizes in bytes, times in seconds unless their name says otherwise."""
        return json.dumps(dataclasses.asdict(self) | {"peak_bytes": self.peak_bytes}, indent=2)

    @property
    def peak_bytes(self) -> int | None:
        """The memory of all parts."""
        return sum(self.memory.values()) if self.memory else None

    def text(self) -> str:
        """For people."""
        update = self.batch_size * self.grad_accum_steps * self.ranks
        lines = {
            "student": _network(self.student),
            "teacher": _network(self.teacher) if self.teacher else "",
            "update": f"{update} images x {self.views} view{'s' if self.views > 1 else ''}: {self.updates_per_epoch}"
            f" updates and {self.updates_per_epoch * update} images per epoch of {self.images}, {self.epochs} epochs",
            "memory": f"{readable_size(self.peak_bytes)} at the peak of a step on each of {self.ranks} x"
            f" {self.device}, {self.precision}",
            "of it": ", ".join(f"{part} {readable_size(size)}" for part, size in (self.memory or {}).items() if size),
            "fits": _fit(self.fit, self) if self.fit else "",
            "network": f"{readable_size(self.network_bytes)} sent by each GPU per update" if self.ranks > 1 else "",
            "time": self._times(),
            "loader": self._loading(),
            "controls": f"not counted, each a training of its own: {', '.join(self.controls)}" if self.controls else "",
            "disk": f"{readable_size(self.state_bytes)} for each of {self.states} states,"
            f" {readable_size(self.export_bytes)} for best/ and last/",
            "unknown": "workspaces of convolutions, fragmentation, what a compiler saves; the time has neither"
            " validation nor waiting for memory, images and other GPUs",
        }
        return "\n".join(f"  {name:<10} {text}" for name, text in lines.items() if text)

    def _times(self) -> str:
        if self.flops is None:
            return "not known"
        operations = f"{self.flops / 1e12:.3g} TFLOP per batch"
        if not self.times:
            return f"{operations}; the speed of {self.device} is not known"
        parts = [
            f"{readable_seconds(3600 * time.hours)} at {time.share:.0%} ({1000 * time.update_seconds:.3g} ms an update)"
            for time in self.times
        ]
        return f"{operations}; whole training by the share of the device's peak: {', '.join(parts)}"

    def _loading(self) -> str:
        loading = self.loading
        given = (
            f"one core gives {loading.per_core:.0f} images/s here, {loading.workers} workers per GPU all images of the"
            f" training in {readable_seconds(3600 * loading.hours)}"
        )
        if loading.needed is None:
            return given
        return (
            f"{given}; half of the peak takes {loading.needed:.0f} images/s per GPU, {loading.needed_workers} workers"
        )


def _fit(fit: Fit, plan: Plan) -> str:
    of = f"{readable_size(fit.usable)} of {readable_size(fit.memory)} can be used"
    if fit.fits:
        return f"yes: {of}; the largest batch is about {fit.largest_batch} images"
    if fit.batch_size is None:
        return f"no: {of}, and no smaller batch does"
    return (
        f"no: {of}; --batch-size {fit.batch_size} --grad-accum-steps {fit.grad_accum_steps} fits and makes the same"
        " update; a batch is also what the contrast and BatchNorm see"
    )


def _network(network: Network) -> str:
    macs = "" if network.gmacs is None else f", {network.gmacs:.3g} GMACs"
    return f"{network.name}, {network.parameters / 1e6:.3f} M parameters{macs}"


def readable_size(size: int | None) -> str:
    """Bytes for people, in binary units as memory is counted."""
    if size is None:
        return "an unknown size"
    if size >= _GIB:
        return f"{size / _GIB:.2f} GiB"
    return f"{size / 2**20:.3g} MiB" if size >= 100_000 else f"{size} bytes"
