"""A plan of a training: what it needs, found without training."""

from dataclasses import dataclass
from functools import partial

from dccd_timm.recipe.option import option, without

_plan = partial(option, group="Plan", published="no", resume="once")
_NO_PLAN = without("plan", "plan is off")


@dataclass(frozen=True)
class Plan:
    """Whether to plan in place of training, and for which machine."""

    plan: bool = _plan(
        False, "check everything and print memory, time and loader workers that it takes; train and write nothing"
    )  # fmt: skip
    plan_gpus: int = _plan(1, "GPUs that would train", low=1, no_effect=(_NO_PLAN,))
    plan_device: str | None = _plan(
        None, 'GPU to plan for, e.g. "H100 80GB", or cpu (default: the GPU here, else H100 80GB)', no_effect=(_NO_PLAN,)
    )
    plan_json: bool = _plan(False, "print the plan as JSON", "--json", no_effect=(_NO_PLAN,))
