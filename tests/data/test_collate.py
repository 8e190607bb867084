"""Images that cannot be read are counted, named and skipped, or end a run with one line."""

import shutil

import pytest
import torch

from dccd_timm.batch import Batch
from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.collate import Collate, SkipCounter, sketch
from dccd_timm.data.decode import Sample
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


def test_a_batch_is_sample_first_and_leaves_out_what_could_not_be_read():
    view = torch.zeros(3, 2, 2, dtype=torch.uint8)
    broken = Sample.skipping("b.png", OSError("not an\nimage"))
    batch = Collate(5)([Sample((view, view + 1), 3), broken, Sample((view + 2, view + 3), 0)])
    assert batch.views.shape == (2, 2, 3, 2, 2) and batch.views[:, :, 0, 0, 0].tolist() == [[0, 1], [2, 3]]
    assert batch.target.tolist() == [3, 0] and batch.fatal is None
    assert batch.skipped == [("b.png (not an image)", 1)]
    assert len(Collate(5)([broken]).views) == 0


@pytest.mark.parametrize("target", [-1, 5])
def test_a_class_index_that_the_student_does_not_have_is_fatal(target):
    batch = Collate(5)([Sample((torch.zeros(3, 2, 2),), target)])
    with pytest.raises(UserError, match=rf"class index {target} is outside 0 ... 4: set --num-classes or --class-map"):
        SkipCounter(100).check(batch)


def test_skipped_images_are_counted_once_and_up_to_the_limit():
    skips = SkipCounter(3)
    for _ in range(2):
        skips.check(Batch.empty([("a", 1), ("b", 2)]))
    assert skips.count == 3 and skips.names == ["a", "b"]
    with pytest.raises(UserError, match="4 images could not be read, more than --max-data-errors 3; the first: a"):
        skips.check(Batch.empty([("c", 1)]))


@pytest.mark.parametrize("size", [(48, 40), (3, 5), (1, 1)])
def test_a_sketch_is_a_few_pixels_of_each_view(size):
    views = torch.randint(0, 256, (2, 3, 3, *size), dtype=torch.uint8)
    found = sketch(views)
    assert found.dtype == torch.uint8 and found.shape == (2, 3, min(4, size[0]) * min(4, size[1]))
    other = views.clone()
    other[1, 2] = views[0, 0]
    assert not (sketch(other) != found)[:, :2].any() and torch.equal(sketch(other)[1, 2], found[0, 0])
    normalised = (views.float() / 255 - 0.5) / 0.25
    assert (sketch(normalised).float() - (found.float() / 255 - 0.5) / 0.25 * 32 - 128).abs().max() <= 1
