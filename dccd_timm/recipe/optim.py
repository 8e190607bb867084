"""How weights are updated: timm's optimizers and learning rate schedules."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from dccd_timm.recipe.option import NoEffect, Values, option, without

_optim = partial(option, group="Optimizer")
_sched = partial(option, group="Learning rate schedule")
_LR_GIVEN = NoEffect(lambda v: v["lr"] is not None, "lr overrides it")


def _only_sched(*names: str) -> NoEffect:
    return NoEffect(lambda v: v["sched"] not in names, f"only sched {', '.join(names)} reads it", refused=False)


def _ignores_momentum(v: Values) -> bool:
    """Whether timm's optimizer reads no momentum; timm is asked only about another value than the default."""
    if v["momentum"] == Optim.momentum:
        return False
    from timm.optim import get_optimizer_info  # --help does without timm

    try:
        return not get_optimizer_info(v["opt"].rpartition("_")[2]).has_momentum  # lookahead_ and the like before it
    except ValueError:  # an unknown optimizer is refused elsewhere
        return False


_NO_MOMENTUM = NoEffect(_ignores_momentum, "the optimizer has no momentum (opt_betas is Adam's)", refused=False)
_NO_NOISE = NoEffect(lambda v: v["lr_noise"] is None, "lr_noise is not set", refused=False)
_NO_WARMUP = NoEffect(lambda v: not v["warmup_epochs"], "warmup_epochs is 0", refused=False)
_CYCLES = _only_sched("cosine", "tanh", "poly")
_ONE_CYCLE = NoEffect(lambda v: v["lr_cycle_limit"] <= 1, "lr_cycle_limit is 1", refused=False)


@dataclass(frozen=True)
class Optim:
    """Optimizer, accumulation and learning rate."""

    opt: str = _optim("sgd", "any of timm's optimizers", resume="refused")
    opt_eps: float | None = _optim(None, "epsilon of the optimizer")
    opt_betas: tuple[float, ...] | None = _optim(None, "betas of the optimizer")
    momentum: float = _optim(0.9, "momentum", no_effect=(_NO_MOMENTUM,))
    weight_decay: float = _optim(2e-05, "weight decay")
    clip_grad: float | None = _optim(None, "clip gradients at this value")
    clip_mode: Literal["norm", "value", "agc"] = _optim(
        "norm", "how to clip", no_effect=(NoEffect(lambda v: v["clip_grad"] is None, "clip_grad is not set"),)
    )
    layer_decay: float | None = _optim(None, "layer-wise learning rate decay")
    layer_decay_min_scale: float = _optim(0.0, "lowest factor of the layer decay", no_effect=(without("layer_decay"),))
    layer_decay_no_opt_scale: float | None = _optim(
        None, "layers below this factor are not trained", no_effect=(without("layer_decay"),)
    )
    opt_kwargs: dict[str, Any] = _optim({}, "further arguments of the optimizer, key=value ...")
    grad_accum_steps: int = _optim(1, "batches per update", low=1)
    sched: str = _sched("cosine", "timm's scheduler: cosine, tanh, step, multistep, poly, plateau, wsd, none")
    sched_on_updates: bool = _sched(False, "set the rate at each update and not at each epoch")
    lr: float | None = _sched(None, "learning rate; overrides --lr-base", low=0)
    lr_base: float = _sched(0.1, "rate for a global batch of --lr-base-size images", low=0, no_effect=(_LR_GIVEN,))
    lr_base_size: int = _sched(256, "batch that --lr-base is given for", low=1, no_effect=(_LR_GIVEN,))
    lr_base_scale: Literal["linear", "sqrt", ""] | None = _sched(
        None, "scaling with the batch (default: sqrt for adaptive optimizers)", no_effect=(_LR_GIVEN,)
    )
    lr_noise: tuple[float, ...] | None = _sched(None, "rate noise, from and to this part of the training")
    lr_noise_pct: float = _sched(0.67, "limit of the rate noise", no_effect=(_NO_NOISE,))
    lr_noise_std: float = _sched(1.0, "standard deviation of the rate noise", no_effect=(_NO_NOISE,))
    lr_cycle_mul: float = _sched(
        1.0,
        "factor on the length of each cycle",
        no_effect=(
            _CYCLES,
            _ONE_CYCLE,
        ),
    )
    lr_cycle_decay: float = _sched(
        0.5,
        "factor on the rate of each cycle",
        no_effect=(
            _CYCLES,
            _ONE_CYCLE,
        ),
    )
    lr_cycle_limit: int = _sched(1, "number of cycles", no_effect=(_CYCLES,))
    lr_k_decay: float = _sched(1.0, "k-decay of cosine and poly", no_effect=(_only_sched("cosine", "poly"),))
    lr_decay_fn: str | None = _sched(None, "wsd: shape of the decay", no_effect=(_only_sched("wsd", "rsqrt"),))
    lr_stable_timescale: float | None = _sched(
        None, "wsd: time scale of the stable phase", no_effect=(_only_sched("rsqrt"),)
    )
    warmup_lr: float = _sched(1e-05, "rate at the start of the warm-up", no_effect=(_NO_WARMUP,))
    min_lr: float = _sched(0.0, "lowest rate")
    epochs: int = _sched(300, "epochs", low=1, usual=True)
    start_epoch: int | None = _sched(None, "first epoch, for restarts", low=0, resume="once")
    decay_milestones: tuple[int, ...] = _sched(
        (90, 180, 270), "multistep: epochs at which the rate falls", no_effect=(_only_sched("multistep"),)
    )
    decay_epochs: float = _sched(90.0, "step: epochs between decays", no_effect=(_only_sched("step", "wsd", "rsqrt"),))
    warmup_epochs: int = _sched(5, "epochs of warm-up", low=0)
    warmup_prefix: bool = _sched(
        False, "the warm-up comes before the schedule and not out of it", no_effect=(_NO_WARMUP,)
    )
    cooldown_epochs: int = _sched(0, "epochs at --min-lr after the schedule", low=0)
    patience_epochs: int = _sched(10, "plateau: epochs without gain", no_effect=(_only_sched("plateau"),))
    decay_rate: float = _sched(
        0.1, "factor of a decay", "--dr", no_effect=(_only_sched("step", "multistep", "plateau", "poly"),)
    )
