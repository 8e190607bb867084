"""Images that cannot be read are counted, named and skipped, or end a run with one line."""

import shutil

import pytest

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import write_parquet
from tests.data.loaders import CPU, opened

CONFIG = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def test_unreadable_images_in_a_stream_are_named(tmp_path):
    data = write_parquet(tmp_path, spoil=(1, 8))
    recipe = load_recipe(["--dataset", f"hfids/{data}", "-j", "0", "-b", "8"])
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    batches = iter(loader)
    for _ in range(6):
        assert len(next(batches).views) == 8
    assert {name.split("(")[1] for name in loader.skips.names} == {"1.png) ", "8.png) "}
    for _ in range(6):  # the next epoch meets them again; they are counted once
        next(batches)
    assert loader.skips.count == 2


def test_the_first_broken_image_of_a_folder_can_end_a_run_with_one_line(folders, tmp_path):
    """Raised in a worker, the line would come back as that worker's traceback."""
    shutil.copytree(folders, tmp_path / "images")
    next((tmp_path / "images" / "train").rglob("*.png")).write_bytes(b"broken")
    recipe = load_recipe(["--data-dir", str(tmp_path / "images"), "-j", "2", "-b", "8", "--data-errors", "raise"])
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    with pytest.raises(UserError) as info:
        for _ in zip(loader, range(6), strict=False):
            pass
    assert "unreadable image" in str(info.value) and "\n" not in str(info.value)
