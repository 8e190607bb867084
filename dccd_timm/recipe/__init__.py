"""Settings: timm's flags and ours as inert, typed, frozen objects."""

from dccd_timm.recipe.augment import Augment
from dccd_timm.recipe.data import Data, Images
from dccd_timm.recipe.device import Device
from dccd_timm.recipe.distil import Distil
from dccd_timm.recipe.hub import Hub
from dccd_timm.recipe.load import load_recipe
from dccd_timm.recipe.optim import Optim
from dccd_timm.recipe.recipe import Recipe
from dccd_timm.recipe.run import Run
from dccd_timm.recipe.student import Network, Student
from dccd_timm.recipe.validation import Validation, load_validation
from dccd_timm.recipe.views import View, plan_views

__all__ = [
    "Augment",
    "Data",
    "Device",
    "Distil",
    "Hub",
    "Images",
    "Network",
    "Optim",
    "Recipe",
    "Run",
    "Student",
    "Validation",
    "View",
    "load_recipe",
    "load_validation",
    "plan_views",
]
