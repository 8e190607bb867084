"""Settings: timm's flags and ours as inert, typed, frozen objects."""

from dccd_timm.recipe.fields import Recipe
from dccd_timm.recipe.load import load_recipe
from dccd_timm.recipe.validation import Validation, load_validation
from dccd_timm.recipe.views import View, plan_views

__all__ = ["Recipe", "Validation", "View", "load_recipe", "load_validation", "plan_views"]
