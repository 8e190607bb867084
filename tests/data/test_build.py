"""Recipe and source make loaders: whole updates, a position that fits or is not used, limits that end a run."""

import contextlib
import json
import time
from itertools import islice

import pytest
import torch

from dccd_timm.data import build
from dccd_timm.data.build import Rank, build_train_loader, check_readable
from dccd_timm.data.sources.hfids_stream import HfidsStream
from dccd_timm.errors import UserError
from dccd_timm.launch.failures import explain
from dccd_timm.recipe import load_recipe
from tests.conftest import write_parquet
from tests.data.loaders import CPU, image_bytes, opened, recipe_for, train_loader

CONFIG = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


class Stuck(HfidsStream):
    """A source whose disk does not answer."""

    def rows(self, *_):
        time.sleep(2)


def test_accumulation_and_repeats_make_whole_updates(parquet, folders):
    def batches(*flags):
        recipe = recipe_for("map", parquet, folders, *flags)
        return build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU)).batches_per_epoch

    assert batches("--grad-accum-steps", 4) == 4
    assert batches("--epoch-repeats", 2) == 12
    assert batches("--train-batches-per-epoch", 20) == 20
    with pytest.raises(UserError, match="not a multiple"):
        batches("--train-batches-per-epoch", 5, "--grad-accum-steps", 2)
    with pytest.raises(UserError, match="lower --batch-size"):
        batches("-b", 50)


def repeated(*flags):
    return load_recipe([*map(str, flags), "-b", "8", "-j", "0", "--aug-repeats", "3"])


def test_repeated_augmentation_gives_each_image_three_times_in_other_crops(folders):
    recipe = repeated("--data-dir", folders)
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    assert loader.batches_per_epoch == 6  # of 48 images, as without
    batches = list(islice(iter(loader), 6))
    views = torch.cat([batch.views for batch in batches]).flatten(1)
    targets = torch.cat([batch.target for batch in batches])
    assert len(torch.unique(views, dim=0)) == 48  # no crop twice
    assert targets.view(16, 3).eq(targets[::3, None]).all()
    loader.close()


def test_an_epoch_of_repeated_augmentation_is_rounded_as_timm_does_it(monkeypatch, folders):
    recipe = repeated("--data-dir", folders)
    source = opened(recipe)
    monkeypatch.setattr(source, "num_samples", 600)
    assert build_train_loader(recipe, source, CONFIG, 3, Rank(CPU, 0, 2)).batches_per_epoch == 512 // 2 // 8


def test_a_stream_or_several_views_cannot_repeat_their_images(parquet, folders):
    recipe = repeated("--dataset", f"hfids/{parquet}")
    with pytest.raises(UserError, match="--aug-repeats needs images in any order.*not a stream: read hfds/"):
        build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    with pytest.raises(UserError, match="aug_repeats gives an image several times, as 2 views do: set dccd_views to 1"):
        repeated("--data-dir", folders, "--dccd-views", 2)


def test_a_second_pass_in_an_epoch_is_augmented_anew(folders):
    recipe = load_recipe(["--data-dir", str(folders), "-b", "8", "-j", "0", "--epoch-repeats", "2"])
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    views = torch.cat([batch.views for batch in islice(iter(loader), 12)]).flatten(1)
    assert len(views) == 96 == len(torch.unique(views, dim=0))
    loader.close()


def test_a_near_view_cannot_be_shifted_by_the_whole_image(parquet, folders):
    flags = ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", "--dccd-view-aug", "near"]
    recipe = recipe_for("map", parquet, folders, *flags, "--dccd-near-shift", CONFIG["input_size"][1])
    with pytest.raises(UserError, match="--dccd-near-shift 24 is not smaller than the images' size"):
        build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))


def test_a_position_of_another_layout_is_not_used(numbered, caplog):
    loader = train_loader(numbered(7), workers=2, batch_size=4)
    batches = iter(loader)
    next(batches)
    state = json.loads(json.dumps(loader.state()))
    again = train_loader(numbered(7), workers=1, batch_size=4, state=state)
    assert "cannot be resumed exactly (workers 2 -> 1): this epoch starts again" in caplog.text
    assert again.position.given == 0
    state["given"] = loader.batches_per_epoch  # at the end of an epoch nothing is lost
    train_loader(numbered(7), workers=1, batch_size=4, state=state)
    assert caplog.messages[-1].endswith("it is another one from this epoch on")


def test_a_worker_that_is_stuck_ends_the_run_with_one_line(numbered, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_GRACE", 0)
    loader = train_loader(numbered(1), flags=("--data-timeout", "1"))
    loader.source.__class__ = Stuck
    with pytest.raises(RuntimeError) as stuck:
        loader.peek()
    error = stuck.value.with_traceback(None)
    del stuck  # and with its frames the workers: left to the garbage collector, another test waits 5 seconds for them
    recipe = load_recipe(["--dataset", "hfids/x", "--data-timeout", "1"])
    line = explain(error, recipe, tmp_path)
    assert "gave no batch for more than 1 s (--data-timeout)" in line and "hfids/x" in line


@pytest.mark.parametrize("broken", [0, 10, 24])
@pytest.mark.parametrize("kind", ["stream", "map"])
def test_a_split_is_read_up_to_its_first_image_before_a_training(kind, broken, tmp_path):
    """It says the same on every rank, whichever part of the images would be its own."""
    if kind == "map":
        for number in range(24):
            path = tmp_path / "validation" / "ab"[number // 12] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(number) if number >= broken else b"broken")
        flags, split = ["--data-dir", tmp_path], "validation"
    else:
        write_parquet(tmp_path, per_class=(8, 0), spoil=range(broken))
        flags, split = ["--dataset", f"hfids/{tmp_path}"], "train"
    recipe = load_recipe([*map(str, flags), "-j", "4"])
    source = opened(recipe, split, False)
    if broken == 24:
        with pytest.raises(UserError, match=r"pass over the validation split gave no image; .*: (a/0.png|.* row 0) \("):
            check_readable(recipe, source, CONFIG, Rank(CPU, 1, 2))
    else:
        check_readable(recipe, source, CONFIG, Rank(CPU, 1, 2))
        with pytest.raises(UserError, match="unreadable image or shard") if broken else contextlib.nullcontext():
            strict = load_recipe([*map(str, flags), "--data-errors", "raise"])
            check_readable(strict, source, CONFIG, Rank(CPU, 1, 2))
