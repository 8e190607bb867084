"""A run: its folder, what it writes there and when, what it logs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dccd_timm.recipe.data import NO_VALIDATION
from dccd_timm.recipe.option import NoEffect, Values, option, without

_run = partial(option, group="Run")
_NO_WANDB = NoEffect(lambda v: v["log_with"] != "wandb", "log_with is not wandb")


def _is_elsewhere(v: Values) -> bool:
    """Whether the run that is resumed lies in another folder than --output and --experiment say."""
    return v["resume"] not in (None, "auto") and Path(v["output"]) / v["experiment"] != Path(v["resume"])


_RESUMED = NoEffect(_is_elsewhere, "resume names the run's folder", refused=False)
_NO_PROJECT = NoEffect(lambda v: v["log_with"] not in ("wandb", "trackio"), "log_with is neither wandb nor trackio")

_UNLABELLED = NoEffect(
    lambda v: v["num_classes"] == 0, "num_classes is 0: k-NN on --probe-split makes the best epoch, else the loss"
)


@dataclass(frozen=True)
class Run:
    """Folder, states, validations and trackers of a training."""

    nonfinite: Literal["stop", "skip"] = _run(
        "stop", "a loss or gradient that is not finite: stop, or skip that update (10 in a row stop all the same)"
    )
    log_interval: int = _run(50, "updates between log lines", low=1, published="no", resume="free")
    recovery_interval: int = _run(
        0, "updates between two saved states inside an epoch, if above 0", low=0, published="no", resume="free"
    )
    checkpoint_hist: int = _run(10, "saved states to keep", low=1, published="no", resume="free")
    val_interval: int = _run(1, "epochs between validations", low=1, no_effect=(NO_VALIDATION,))
    output: str = _run("output/train", "folder of the runs", published="no", no_effect=(_RESUMED,), resume="free")
    experiment: str = _run(
        "",
        "name of this run's folder (default: time, student and teacher)",
        published="no",
        no_effect=(_RESUMED,),
        resume="free",
        usual=True,
    )
    eval_metric: Literal["top1", "top5", "loss"] = _run(
        "top1", "what makes the best epoch", no_effect=(NO_VALIDATION, _UNLABELLED), measures=True
    )
    resume: str | None = _run(
        None, "continue a run: its folder, or auto with --experiment", published="no", resume="once"
    )
    no_resume_opt: bool = _run(
        False,
        "do not restore the optimizer when resuming",
        no_effect=(without("resume"),),
        published="no",
        resume="once",
    )
    log_with: Literal["none", "tensorboard", "wandb", "trackio"] = _run(
        "none", "where curves are logged beside summary.csv", published="no", resume="free"
    )
    log_wandb: bool = _run(False, "timm's name for --log-with wandb", published="no", resume="free")
    wandb_project: str | None = _run(
        None,
        "project of the W&B or trackio run (default: dccd-timm)",
        no_effect=(_NO_PROJECT,),
        published="no",
        resume="free",
    )
    wandb_tags: tuple[str, ...] = _run((), "tags of the W&B run", no_effect=(_NO_WANDB,), published="no", resume="free")
    wandb_resume_id: str = _run(
        "", "id of the W&B run to continue", no_effect=(_NO_WANDB,), published="no", resume="free"
    )
    no_ddp_bb: bool = _run(False, "do not broadcast buffers at each distributed step", group="Device and precision")
