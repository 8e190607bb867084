"""What environment variables say of the launch, from a launcher, from accelerate's configuration or left over."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator

from accelerate.utils import DynamoBackend

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, Validation

_logger = logging.getLogger(__name__)

_CPU_LAUNCH = "torchrun --nproc-per-node N train.py ... starts N processes on CPUs"
_RANKS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_SPLITS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration",
}
_ON, _OFF = ("1", "true", "yes", "y", "t", "on"), ("", "0", "false", "no", "n", "f", "off")
# Seconds after which a rank says whom it waits for.
_WAIT = 10.0


def check_ranks() -> int:
    """The number of processes that the environment speaks of.

    Raises:
        UserError: when it is half set, as another job leaves it, or is MPI's.
    """
    numbers = {}
    for name in (*_RANKS[:3], _RANKS[4], "LOCAL_WORLD_SIZE", *_MPI):
        if value := os.environ.get(name):
            if not value.isdecimal():
                raise UserError(f"{name}={value} in the environment is not a number: unset it, or use torchrun")
            numbers[name] = int(value)
    world, rank = numbers.get("WORLD_SIZE", 1), numbers.get("RANK", 0)
    for name in _MPI:
        if numbers.get(name, 1) > 1 and "WORLD_SIZE" not in numbers:
            raise UserError(
                f"{name}={numbers[name]} in the environment is MPI's: start the ranks with torchrun, or unset it if"
                " another job left it"
            )
    missing = [name for name in _RANKS if not os.environ.get(name) and name != "LOCAL_RANK"]
    if missing and (world > 1 or rank > 0 or "LOCAL_RANK" in numbers):
        raise UserError(f"the environment has {_described()} but no {', '.join(missing)}: {_LEFT_OVER}")
    if rank >= world:
        raise UserError(f"the environment has {_described()}, and ranks count from 0: {_LEFT_OVER}")
    return world


_LEFT_OVER = "unset what another job left, or start with torchrun"


def _described() -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in _RANKS if os.environ.get(name))


@contextlib.contextmanager
def waiting_for_ranks(world: int) -> Iterator[None]:
    """Around the forming of the group: after 10 s, say once on each machine whom this rank waits for; after 30 s every
    rank says it, since another job may have left LOCAL_RANK too.

    torch waits in C++, where Python's Ctrl-C does not come through; here it ends the process.
    """
    if world == 1:
        yield
        return
    rank = os.environ["RANK"]
    others = f"the other {world - 1} of {world} processes" if rank == "0" else "rank 0 and the others"
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    timer = threading.Timer(
        _WAIT if is_first else 3 * _WAIT,
        _logger.warning,
        ("rank %s waits for %s (%s in the environment): %s; Ctrl-C ends it", rank, others, _described(), _LEFT_OVER),
    )
    timer.daemon = True
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if main else None
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if before is not None:
            signal.signal(signal.SIGINT, before)


def is_on(name: str) -> bool:
    """Whether a variable of accelerate's is set to a word for yes.

    Raises:
        UserError: for a word that is neither yes nor no.
    """
    value = os.environ.get(name, "").lower()
    if value not in (*_ON, *_OFF):
        raise UserError(f"{name}={value} in the environment is neither true nor false")
    return value in _ON


def check_accelerate(settings: Recipe | Validation) -> None:
    """Refuse what accelerate's variables ask for and this program would not do, and log what its flags overrule.

    Raises:
        UserError: with the variable and what to do.
    """
    for switch, what in _SPLITS.items():
        if is_on(switch):
            raise UserError(
                f"{what} splits the student over ranks, which a student small enough to distil does not need: use"
                " accelerate launch --multi_gpu, a whole student per GPU (--grad-checkpointing and --amp save memory)"
            )
    if is_on("ACCELERATE_USE_CPU") and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise UserError(f"accelerate launch --cpu --num_processes N starts one process, whatever N: {_CPU_LAUNCH}")
    _check_choice("ACCELERATE_MIXED_PRECISION", ("no", "bf16", "fp16"), "--amp")
    _check_choice("ACCELERATE_DYNAMO_BACKEND", [backend.value.lower() for backend in DynamoBackend], "--torchcompile")
    device = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if device and settings.device == "cpu" and device != "cpu":
        raise UserError(f"ACCELERATE_TORCH_DEVICE={device} in the environment contradicts --device cpu: unset it")
    overruled = []
    if settings.amp and os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        overruled.append(("ACCELERATE_MIXED_PRECISION", f"--amp --amp-dtype {settings.amp_dtype}"))
    if settings.torchcompile and os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        overruled.append(("ACCELERATE_DYNAMO_BACKEND", f"--torchcompile {settings.torchcompile}"))
    if isinstance(settings, Recipe):
        overruled += _check_accumulation(settings)
        if os.environ.get("ACCELERATE_GRADIENT_CLIPPING", "none") != "none":
            overruled.append(("ACCELERATE_GRADIENT_CLIPPING", f"--clip-grad ({settings.clip_grad or 'none'})"))
    if os.environ.get("RANK", "0") == "0":
        for name, flag in overruled:
            _logger.warning("%s=%s in the environment is not used: %s is", name, os.environ[name], flag)


def _check_accumulation(recipe: Recipe) -> list[tuple[str, str]]:
    """Refuse accumulation that only the environment asks for; 1 is a launcher's default, which the recipe overrules."""
    name = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    steps, accumulated = os.environ.get(name, "1"), recipe.grad_accum_steps
    if steps == str(accumulated) or name not in os.environ:
        return []
    if steps != "1":
        raise UserError(
            f"accelerate is configured for gradient_accumulation_steps {steps}, the recipe says"
            f" {accumulated}: give --grad-accum-steps {steps}, or drop it there"
        )
    return [(name, f"--grad-accum-steps {accumulated}")]


def _check_choice(name: str, choices: tuple[str, ...] | list[str], flag: str) -> None:
    value = os.environ.get(name, "no").lower()
    if value not in choices:
        raise UserError(f"{name}={value} is not supported: use {', '.join(choices[:6])}, or {flag}")
