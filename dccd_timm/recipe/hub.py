"""Where a student is published."""

from dataclasses import dataclass
from functools import partial

from dccd_timm.recipe.option import option, without

_hub = partial(option, group="Hugging Face Hub", published="no", resume="free")
_NO_HUB = without("push_to_hub")


@dataclass(frozen=True)
class Hub:
    """The repository on the Hugging Face Hub, and its card's license."""

    push_to_hub: str | None = _hub(None, "push the student with its card and pictures to owner/name at the end")
    hub_public: bool = _hub(False, "make a new repository public (default: private)", no_effect=(_NO_HUB,))
    hub_revision: str | None = _hub(None, "branch to push to; made when there is none", no_effect=(_NO_HUB,))
    hub_interval: int = _hub(
        0, "also push the best student so far every N epochs, if above 0", low=0, no_effect=(_NO_HUB,)
    )
    hub_license: str | None = _hub(
        None, "license of the card (default: that of what the student was made from)", no_effect=(_NO_HUB,)
    )
    hub_overwrite: bool = _hub(
        False, "push into a repository that has files of somebody else; its README stays", no_effect=(_NO_HUB,)
    )
