"""Planning: what has no effect, and that a resume does not remember it."""

from dataclasses import fields

import pytest

from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.option import option_of
from dccd_timm.recipe.plan import Plan
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--plan-gpus 8", "plan_gpus has no effect: plan is off"),
        ("--plan-device cpu", "plan_device has no effect: plan is off"),
        ("--json", "plan_json has no effect: plan is off"),
        ("--plan --plan-gpus 0", "must be at least 1"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


def test_it_is_about_one_start_of_the_program():
    assert {option_of(spec).resume for spec in fields(Plan)} == {"once"}
    recipe = load_recipe(["--plan", "--plan-gpus", "8", "--plan-device", "A100", "--json"])
    assert recipe.plan and recipe.plan_json and recipe.plan_gpus == 8
