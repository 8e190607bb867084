"""All settings of one training."""

from dataclasses import dataclass

from dccd_timm.recipe.augment import Augment
from dccd_timm.recipe.data import Data
from dccd_timm.recipe.device import Device
from dccd_timm.recipe.distil import Distil
from dccd_timm.recipe.hub import Hub
from dccd_timm.recipe.optim import Optim
from dccd_timm.recipe.plan import Plan
from dccd_timm.recipe.run import Run
from dccd_timm.recipe.student import Student


@dataclass(frozen=True)
class Recipe(Plan, Device, Hub, Run, Augment, Optim, Distil, Student, Data):
    """All settings of one training; made by :func:`dccd_timm.recipe.load_recipe`, which checks them together.

    A function asks for the part that it reads: ``Optim``, ``Data``, ``Hub`` ... The last base's fields come first in
    args.yaml.
    """

    @property
    def is_unlabelled(self) -> bool:
        """Whether it trains on images without labels, a student without a head."""
        return self.num_classes == 0

    @property
    def score(self) -> str:
        """The metric of a validation that makes the best epoch."""
        if self.is_unlabelled:
            return "knn" if self.probe_split else "loss"
        return self.eval_metric

    @property
    def lower_is_better(self) -> bool:
        """Whether epochs are compared by a loss: of the validation, or the training loss without validation."""
        return self.score == "loss" or not self.val_split
