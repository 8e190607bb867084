"""The plan of an image's views: which are drawn, which are near copies, and which two are compared."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe


@pytest.mark.parametrize(
    ("words", "views", "pair"),
    [
        (["same"], None, (0, 1)),
        (["near"], None, (0, 1)),
        (["strong", "near:0"], None, (0, 1)),
        (["strong", "weak", "near:1"], None, (1, 2)),
        (["near:2", "strong", "weak"], 3, (2, 0)),
    ],
)
def test_the_task_is_told_which_pair_is_near(words, views, pair):
    flags = ["--dccd-views", str(views)] if views else []
    recipe = load_recipe(
        ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", "--dccd-view-aug", *words, *flags]
    )
    assert recipe.dccd_difference_views == pair and recipe.dccd_views == max(2, len(words))


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
