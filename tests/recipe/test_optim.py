"""Optimizer and schedule: what has no effect beside what."""

import pytest

from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lr 0.1 --lr-base 0.2", "no effect: lr overrides it"),
        ("--lr 0.1 --lr-base-scale linear", "no effect: lr overrides it"),
        ("--clip-mode agc", "no effect: clip_grad is not set"),
        ("--layer-decay-min-scale 0.1", "no effect: layer_decay is not set"),
        ("--grad-accum-steps 0", "must be at least 1"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--decay-rate 0.5", "decay_rate has no effect: only sched step, multistep, plateau, poly reads it"),
        ("--decay-milestones 3 5 --sched step", "decay_milestones has no effect: only sched multistep reads it"),
        ("--warmup-epochs 0 --warmup-lr 0.01", "warmup_lr has no effect: warmup_epochs is 0"),
        ("--lr-cycle-mul 2", "lr_cycle_mul has no effect: lr_cycle_limit is 1"),
        ("--lr-noise-std 2", "lr_noise_std has no effect: lr_noise is not set"),
    ],
)
def test_a_flag_that_the_schedule_does_not_read_gets_a_warning_and_a_recipe_may_set_it(
    flags, message, tmp_path, caplog
):
    given = load_recipe(flags.split())
    assert [record.message for record in caplog.records] == [message]
    recipe = tmp_path / "args.yaml"
    name = message.split()[0]
    value = getattr(given, name)
    recipe.write_text(f"{name}: {list(value) if isinstance(value, tuple) else value}\nwarmup_epochs: 0\nsched: cosine")
    assert getattr(load_recipe(["-c", str(recipe)]), name) == value
    assert len(caplog.records) == 1
