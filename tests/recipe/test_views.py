"""Which views are drawn, which are near copies, and which pair is compared."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.views import View, difference_pair, plan_views

STRONG, WEAK = View(), View(strong=False)


@pytest.mark.parametrize(
    ("relations", "count", "views", "pair"),
    [
        (["same"], 1, [STRONG], (0, 1)),
        (["same"], 3, [STRONG] * 3, (0, 1)),
        (["weak-strong"], 2, [WEAK, STRONG], (0, 1)),
        (["near"], 3, [STRONG, STRONG, View(near=0)], (0, 2)),
        (["strong", "weak"], 2, [STRONG, WEAK], (0, 1)),
        (["strong", "weak", "near:1"], 3, [STRONG, WEAK, View(strong=False, near=1)], (1, 2)),
        (["near:1", "strong"], 2, [View(strong=False, near=1), STRONG], (1, 0)),
    ],
)
def test_plan(relations, count, views, pair):
    assert plan_views(relations, count) == views
    assert difference_pair(views) == pair


@pytest.mark.parametrize(
    ("relations", "count", "message"),
    [
        (["near"], 1, "near relates two or more views"),
        (["blurred"], 2, "1 values for 2 views"),
        (["strong", "blurred"], 2, "'blurred' is no view"),
        (["strong", "near:1"], 2, "near view 1, which is not drawn by itself"),
        (["strong", "near:7"], 2, "near view 7, which is not drawn by itself"),
    ],
)
def test_plans_that_cannot_be(relations, count, message):
    with pytest.raises(ValueError, match=message):
        plan_views(relations, count)


@pytest.mark.parametrize(
    ("relations", "views", "pair"),
    [
        (["same"], None, (0, 1)),
        (["near"], None, (0, 1)),
        (["strong", "near:0"], None, (0, 1)),
        (["strong", "weak", "near:1"], None, (1, 2)),
        (["near:2", "strong", "weak"], 3, (2, 0)),
    ],
)
def test_the_recipe_names_the_pair_that_is_compared(relations, views, pair):
    flags = ["--dccd-views", str(views)] if views else []
    recipe = load_recipe(
        ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", "--dccd-view-aug", *relations, *flags]
    )
    assert recipe.dccd_difference_views == pair and recipe.dccd_views == max(2, len(relations))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dccd-view-aug", "blurred"], "1 values for 2 views"),
        (["--dccd-view-aug", "strong", "blurred"], "'blurred' is no view"),
        (["--dccd-view-aug", "strong", "near:1"], "near view 1, which is not drawn by itself"),
        (["--dccd-view-aug", "near", "--dccd-views", "1", "--dccd-difference-weight", "0"], "set dccd_views"),
        (["--dccd-near-noise", "0.1"], "dccd_near_noise has no effect: dccd_view_aug has no near view"),
    ],
)
def test_views_that_cannot_be(flags, message):
    with pytest.raises(UserError, match=message):
        load_recipe(["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", *flags])
