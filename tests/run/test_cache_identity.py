"""What answers belong to: every option that changes a view, and nothing that does not."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from dccd_timm.data.sources import open_split
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.option import option_of
from dccd_timm.run.cache_identity import belongings, hash_files
from tests.data.loaders import CONFIG

ACCELERATOR = SimpleNamespace(device=torch.device("cpu"), mixed_precision="no")


def of(folders, *flags):
    recipe = load_recipe(["--data-dir", str(folders), "--kd-model-name", "resnet18", *map(str, flags)])
    return belongings(recipe, open_split(recipe, "train", True, None), CONFIG, ACCELERATOR)


@pytest.mark.parametrize(
    "flags",
    ["--hflip 0", "--aa augmix", "--dccd-view-period 2", "--pil-views", "--train-crop-pad 4", "--seed 3", "--reprob 0.1",
     "--kd-teacher-dtype bfloat16", "--train-interpolation bicubic"],
)  # fmt: skip
def test_what_changes_a_view_or_an_answer_is_in_it(flags, folders):
    assert of(folders, *flags.split()) != of(folders)


@pytest.mark.parametrize("flags", ["--lr 1", "-b 7", "-j 1", "--epochs 9", "--smoothing 0", "--model resnet34"])
def test_what_changes_neither_is_not(flags, folders):
    assert of(folders, *flags.split()) == of(folders)


def test_every_option_that_the_drawing_of_views_reads_is_marked():
    """The sources of views.py and of the preparer in build.py, against the declarations."""
    from pathlib import Path

    import dccd_timm.data as package

    root = Path(package.__file__).parent
    text = (root / "views.py").read_text() + (root / "build.py").read_text().split("def _train_preparer")[1]
    text += (root / "build.py").read_text().split("def _train_reading")[1].split("def _reading")[0]
    marked = {spec.name for spec in dataclasses.fields(Recipe) if option_of(spec).views}
    read = {spec.name for spec in dataclasses.fields(Recipe) if f"recipe.{spec.name}" in text.partition("def _skip")[0]}
    mixing = {name for name in read if name.startswith(("mixup", "cutmix"))} | {"smoothing", "seed"}
    assert read - mixing <= marked


def test_files_of_a_teacher_are_known_by_their_contents(tmp_path):
    def of(flags):
        return hash_files(load_recipe(flags))

    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"one")
    flags = ["--kd-model-name", "resnet18", "--kd-teacher-checkpoint", str(checkpoint)]
    first = of(flags)
    checkpoint.write_bytes(b"two")
    assert first and first != of(flags)
    assert of(flags[:2]) == ""  # a name of timm's
    assert of(["--kd-model-name", f"local-dir:{tmp_path}"]) and of(["--kd-model-name", "local-dir:/nowhere"]) == ""
