"""Loaders: every image once, the same augmentation on any number of workers, batches never torn."""

from collections import Counter

import pytest
import torch

from dccd_timm.data.build import build_eval_loader, build_train_loader, open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES, write_parquet

CONFIG = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)
CPU = torch.device("cpu")


def recipe_for(kind, parquet, folders, *flags):
    data = (
        ["--dataset", f"hfids/{parquet}", "--val-split", "test"] if kind == "stream" else ["--data-dir", str(folders)]
    )
    return load_recipe([*data, "--dccd-views", "2", "-b", "8", *map(str, flags)])


def fingerprint(batch):
    """What identifies an image whatever its augmentation: nothing but its class here, so views are taken whole."""
    return [view.sum().item() for view in batch.views.flatten(0, 1)], batch.target.tolist()


@pytest.mark.parametrize("kind", ["stream", "map"])
def test_names_size_and_shapes(kind, parquet, folders):
    recipe = recipe_for(kind, parquet, folders, "-j", 0)
    source = open_split(recipe, "train", True)
    assert (source.num_samples, source.names) == (48, CLASSES)
    loader = build_train_loader(recipe, source, CONFIG, 3, CPU)
    assert loader.batches_per_epoch == 6
    batch = next(iter(loader))
    assert batch.views.shape == (8, 2, 3, 24, 24) and batch.target.shape == (8,)
    assert not torch.equal(batch.views[:, 0], batch.views[:, 1])


def plain(recipe, split, kind, rank, world, workers):
    """Images of a pass in evaluation, as the sums of their pixels."""
    source = open_split(recipe, split, False)
    loader = build_eval_loader(recipe, source, CONFIG, 3, CPU, rank, world)
    return [round(view.sum().item(), 3) for batch in loader for view in batch.views[:, 0]]


@pytest.mark.parametrize("kind", ["stream", "map"])
@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1), (3, 0)])
def test_evaluation_sees_each_image_once_over_all_ranks(kind, world, workers, parquet, folders):
    recipe = recipe_for(kind, parquet, folders, "-j", workers)
    split = "test" if kind == "stream" else "validation"
    seen = Counter(v for rank in range(world) for v in plain(recipe, split, kind, rank, world, workers))
    assert sum(seen.values()) == 24
    assert seen == Counter(plain(recipe_for(kind, parquet, folders, "-j", 0), split, kind, 0, 1, 0))


@pytest.mark.parametrize("kind", ["stream", "map"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_training_epoch_sees_each_image_once_and_the_next_in_another_order(kind, world, parquet, folders):
    flags = ["-j", 0, "--no-aug", "-b", 4, "--dccd-views", 1]
    orders = []
    per_epoch = 48 // (4 * world)
    for rank in range(world):
        recipe = recipe_for(kind, parquet, folders, *flags)
        loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU, rank, world)
        batches = iter(loader)
        orders.append(
            [[round(v.sum().item(), 3) for _ in range(per_epoch) for v in next(batches).views[:, 0]] for _ in range(2)]
        )
    for epoch in range(2):
        everything = [v for rank in orders for v in rank[epoch]]
        assert len(everything) == len(set(everything)) == 48
    assert orders[0][0] != orders[0][1]
    if world == 1:
        assert sorted(orders[0][0]) == sorted(orders[0][1])


def test_map_batches_do_not_depend_on_workers_and_go_on_at_an_epoch(parquet, folders):
    runs = []
    for workers, start in ((0, 0), (2, 0), (0, 1)):
        recipe = recipe_for("map", parquet, folders, "-j", workers)
        loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU, start_epoch=start)
        batches = iter(loader)
        runs.append([fingerprint(next(batches)) for _ in range(12 - 6 * start)])
    assert runs[0] == runs[1]
    assert runs[0][6:] == runs[2]  # a run that starts at epoch 1 sees what the first would have seen there


def test_streams_begin_again_at_an_epoch(parquet, folders):
    recipe = recipe_for("stream", parquet, folders, "-j", 0)
    runs = []
    for start in (0, 1):
        batches = iter(build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU, start_epoch=start))
        runs.append([fingerprint(next(batches)) for _ in range(12 - 6 * start)])
    assert runs[0][6:] == runs[1]


def test_accumulation_and_repeats_make_whole_updates(parquet, folders):
    def batches(*flags):
        recipe = recipe_for("map", parquet, folders, *flags)
        return build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU).batches_per_epoch

    assert batches("--grad-accum-steps", 4) == 4
    assert batches("--epoch-repeats", 2) == 12
    assert batches("--train-batches-per-epoch", 20) == 20
    with pytest.raises(UserError, match="no multiple"):
        batches("--train-batches-per-epoch", 5, "--grad-accum-steps", 2)
    with pytest.raises(UserError, match="lower --batch-size"):
        batches("-b", 50)


def test_more_workers_than_shards_become_fewer(parquet, folders, caplog):
    caplog.set_level("INFO")
    recipe = recipe_for("stream", parquet, folders, "-j", 5)
    loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
    assert loader.loader.num_workers == 2 and "2 loader workers instead of 5" in caplog.text


def test_columns_are_found_or_asked_for(tmp_path):
    import datasets

    table = {"picture": [{"bytes": b"x", "path": None}], "kind": [1], "text": ["a"]}
    kinds = datasets.Features(picture=datasets.Image(), kind=datasets.Value("int64"), text=datasets.Value("string"))
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(table, features=kinds).to_parquet(tmp_path / "data" / "train.parquet")

    def opened(*flags):
        return open_split(load_recipe(["--dataset", f"hfids/{tmp_path}", *flags]), "train", True)

    with pytest.raises(UserError, match="no class column found among picture, kind, text: name it with --target-key"):
        opened()
    source = opened("--target-key", "kind")
    assert (source.image_key, source.target_key, source.names, source.num_samples) == ("picture", "kind", None, 1)


def test_other_local_places(parquet, tmp_path):
    recipe = load_recipe(["--dataset", f"hfids/{parquet.name}", "--data-dir", str(parquet.parent)])
    assert open_split(recipe, "train", True).num_samples == 48
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        open_split(load_recipe(["--dataset", f"hfids/{tmp_path}/empty"]), "train", True)


def test_unreadable_images_in_a_stream_are_named(tmp_path):
    data = write_parquet(tmp_path, spoil=(1, 8))
    recipe = load_recipe(["--dataset", f"hfids/{data}", "-j", "0", "-b", "8"])
    loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
    batches = iter(loader)
    for _ in range(6):
        assert len(next(batches).views) == 8
    assert {name.split("(")[1] for name in loader.skips.names} == {"1.png) ", "8.png) "}
    for _ in range(6):  # the next epoch meets them again; they are counted once
        next(batches)
    assert loader.skips.count == 2


def test_a_near_view_cannot_be_moved_out_of_its_image(parquet, folders):
    flags = ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", "--dccd-view-aug", "near"]
    recipe = recipe_for("map", parquet, folders, *flags, "--dccd-near-shift", CONFIG["input_size"][1])
    with pytest.raises(UserError, match="moves images of .* out of themselves"):
        build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
