"""A run: what has no effect, and what contradicts."""

import pytest

from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--val-split= --val-interval 2", "no effect: val_split is empty"),
        ("--val-split= --eval-metric loss", "no effect: val_split is empty"),
        ("--no-resume-opt", "no effect: resume is not set"),
        ("--resume auto", "needs --experiment"),
        ("--wandb-tags a", "no effect: log_with is not wandb"),
        ("--log-with tensorboard --wandb-project p", "no effect: log_with is neither wandb nor trackio"),
        ("--log-wandb --log-with trackio", "log_wandb contradicts log_with trackio"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


def test_timms_flag_for_wandb_is_log_with_wandb():
    assert load_recipe(["--log-wandb", "--wandb-tags", "a"]).log_with == "wandb"


def test_a_run_that_is_resumed_is_not_moved(caplog):
    load_recipe(["--resume", "output/train/a", "--experiment", "a"])
    assert not caplog.records
    load_recipe(["--resume", "runs/a", "--experiment", "b", "--output", "elsewhere"])
    assert [record.message for record in caplog.records] == [
        f"{name} has no effect: resume names the run's folder" for name in ("experiment", "output")
    ]
