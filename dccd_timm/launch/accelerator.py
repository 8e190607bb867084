"""How accelerate is started: launch, device, precision, accumulation, and which process logs."""

import logging
import os
import signal
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, KwargsHandler
from timm.layers import set_fast_norm

from dccd_timm.errors import UserError
from dccd_timm.launch.environment import check_accelerate, check_ranks, is_on, waiting_for_ranks
from dccd_timm.launch.modules import import_modules
from dccd_timm.process import end_with_parent
from dccd_timm.recipe import Recipe, Validation

_logger = logging.getLogger(__name__)


def start_accelerator(settings: Recipe | Validation) -> Accelerator:
    """Create this process's Accelerator and make timm's device settings.

    Raises:
        UserError: for a precision or tracker that is not available here, a launch that would train N times alone, or
            one that splits the student itself over ranks.
    """
    training = settings if isinstance(settings, Recipe) else None
    import_modules(settings.device_modules)
    check_accelerate(settings)
    world = check_ranks()
    if world > 1:
        end_with_parent(signal.SIGTERM)  # ranks without a launcher would keep writing states
    cpu = settings.device == "cpu" or is_on("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    precision = _mixed_precision(settings, cpu)
    tracker = training.log_with if training and training.log_with != "none" else None
    if tracker and tracker not in {kind.value for kind in get_available_trackers()}:
        raise UserError(f"--log-with {tracker} needs its package: pip install {tracker}")
    _check_compiler(settings)
    with waiting_for_ranks(world):
        accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=precision,
            # as a plugin, which the environment does not overrule
            gradient_accumulation_plugin=GradientAccumulationPlugin(training.grad_accum_steps if training else 1),
            dynamo_backend="no" if settings.torchcompile else None,
            log_with=tracker,
            project_dir=training.output if training else None,
            kwargs_handlers=_distributed_options(settings, world, cpu),
        )
    if world != accelerator.num_processes:
        raise UserError(
            f"the launcher started {world} processes but accelerate sees {accelerator.num_processes}: use accelerate"
            " launch --multi_gpu, or torchrun --nproc-per-node"
        )
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if settings.fast_norm:
        set_fast_norm()
    if not accelerator.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    return accelerator


def _check_compiler(settings: Recipe | Validation) -> None:
    """Refuse a compiler that torch does not have."""
    if not settings.torchcompile:
        return
    import torch._dynamo  # slow to import

    known: list[str] = torch._dynamo.list_backends(exclude_tags=())
    if settings.torchcompile not in known:
        raise UserError(f"--torchcompile {settings.torchcompile} is no compiler of torch's: it has {', '.join(known)}")


def _mixed_precision(settings: Recipe | Validation, cpu: bool) -> str | None:
    """The name that accelerate has for the precision; None leaves it to the launcher."""
    precision = {"float16": "fp16", "bfloat16": "bf16"}[settings.amp_dtype] if settings.amp else None
    if cpu and precision == "fp16":
        if os.environ.get("RANK", "0") == "0":
            _logger.warning("--amp takes bfloat16 on this CPU: float16 needs a GPU")
        precision = "bf16"
    if cpu and (precision or os.environ.get("ACCELERATE_MIXED_PRECISION")) == "fp16":
        raise UserError("float16 needs a GPU: launch with --mixed_precision bf16, or without")
    if cpu and isinstance(settings, Recipe) and settings.kd_teacher_dtype == "float16":
        raise UserError("--kd-teacher-dtype float16 needs a GPU: use bfloat16 or float32")
    return precision


def _distributed_options(settings: Recipe | Validation, world: int, cpu: bool) -> list[KwargsHandler]:
    """DDP's options, and those of the process group, which is formed here when torchrun restarted it."""
    # longer than the data may take to come, or ranks would give up one that waits for the Hub
    timeout = timedelta(seconds=settings.dist_timeout or settings.data_timeout + 300)
    if cpu or torch.cuda.is_available():
        _rejoin_group("gloo" if cpu else "nccl", timeout)
    broadcasts = not (isinstance(settings, Recipe) and settings.no_ddp_bb)
    handlers: list[KwargsHandler] = [
        DistributedDataParallelKwargs(broadcast_buffers=broadcasts, gradient_as_bucket_view=True)
    ]
    if world > 1:  # a backend makes accelerate look for a group, even of one
        handlers.append(InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=timeout))
    return handlers


def _rejoin_group(backend: str, timeout: timedelta) -> None:
    """Form the group of ranks after torchrun has restarted them: torch alone finds the dead ranks' keys and fails.

    Only one machine knows the number of restarts, so runs on several machines are left to torch.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    if restarts == "0" or not alone or os.environ["WORLD_SIZE"] == "1":
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, hosts, timeout=timeout)
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"dccd_timm_{restarts}", store), rank=rank, world_size=world, timeout=timeout
    )
