"""What the best student is."""

import json

import pytest

from dccd_timm.recipe import load_recipe
from dccd_timm.run.best import Best, is_better, validates_ema


@pytest.mark.parametrize(
    ("metric", "validated", "flags", "better"),
    [
        (71.0, True, "", True),
        (69.0, True, "", False),
        (70.0, True, "", False),  # the earlier epoch stays
        (69.0, True, "--eval-metric loss", True),
        (71.0, True, "--eval-metric loss", False),
        (69.0, False, "", True),  # the training loss
        (71.0, False, "", False),
        (float("nan"), True, "", False),
    ],
)
def test_what_is_better_than_70(metric, validated, flags, better):
    recipe = load_recipe(["--val-split", "test" if validated else "", *flags.split()])
    assert is_better(recipe, metric, Best(3, 70.0)) is better
    assert is_better(recipe, metric, None)  # the first one always is


def test_the_best_epoch_survives_a_state():
    best = Best(3, 70.0, {"top1": 70.0, "loss": 0.5})
    assert Best.from_json(json.loads(json.dumps(best.to_json()))) == best
    assert Best.from_json({"epoch": 3, "metric": 0.5}) == Best(3, 0.5)


def test_the_average_is_validated_unless_it_is_on_the_cpu():
    assert not validates_ema(load_recipe([]))
    assert validates_ema(load_recipe(["--model-ema"]))
    assert not validates_ema(load_recipe(["--model-ema", "--model-ema-force-cpu"]))
