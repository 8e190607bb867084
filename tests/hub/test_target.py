"""Where a student goes, and the command that pushes it there."""

import shlex
from pathlib import Path

from dccd_timm.hub.target import Target
from dccd_timm.recipe import load_recipe


def test_a_recipe_names_its_target():
    assert Target.of(load_recipe([])) is None
    flags = ["--push-to-hub", "a/b", "--hub-public", "--hub-revision", "v2", "--hub-license", "mit", "--hub-overwrite"]
    assert Target.of(load_recipe(flags)) == Target("a/b", True, "v2", "mit", True)


def test_the_command_that_tries_again_is_what_a_shell_takes():
    assert Target("a/b").retry_command(Path("out/run")) == "dccd-timm push out/run a/b"
    command = Target("a/b", True, "feature/$x", "it's", True).retry_command(Path("my run"))
    assert shlex.split(command) == [
        "dccd-timm", "push", "my run", "a/b", "--hub-public", "--hub-revision", "feature/$x", "--hub-license", "it's",
        "--hub-overwrite",
    ]  # fmt: skip
