"""Settings: timm's flags and ours as one inert, typed, frozen object."""

from dccd_timm.recipe.errors import UserError
from dccd_timm.recipe.fields import METHODS, Recipe
from dccd_timm.recipe.load import load_recipe

__all__ = ["METHODS", "Recipe", "UserError", "load_recipe"]
