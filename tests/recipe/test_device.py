"""Devices and precision: what has no effect."""

import pytest

from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--amp-dtype bfloat16", "no effect: amp is off"),
        ("--torchcompile-mode max-autotune", "no effect: torchcompile is off"),
        ("--amp --amp-dtype float8", "must be one of float16, bfloat16"),
        ("--dist-timeout 0", "must be at least 1"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


def test_compile_takes_a_backend_or_none():
    assert load_recipe([]).torchcompile is None
    assert load_recipe(["--torchcompile"]).torchcompile == "inductor"
    assert load_recipe(["--torchcompile", "eager"]).torchcompile == "eager"
