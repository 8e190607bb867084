"""Loaders: every image once, the same augmentation on any number of workers, batches never torn."""

from collections import Counter, deque

import datasets
import pytest
import torch

from dccd_timm.data import stream
from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES
from tests.data.loaders import CPU, image_bytes, opened, recipe_for

CONFIG = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def fingerprint(batch):
    """What identifies an image whatever its augmentation: nothing but its class here, so views are taken whole."""
    return [view.sum().item() for view in batch.views.flatten(0, 1)], batch.target.tolist()


@pytest.mark.parametrize("kind", ["stream", "map"])
def test_names_size_and_shapes(kind, parquet, folders):
    recipe = recipe_for(kind, parquet, folders, "-j", 0)
    source = opened(recipe)
    assert (source.num_samples, source.names) == (48, CLASSES)
    loader = build_train_loader(recipe, source, CONFIG, 3, Rank(CPU))
    assert loader.batches_per_epoch == 6
    batch = next(iter(loader))
    assert batch.views.shape == (8, 2, 3, 24, 24) and batch.target.shape == (8,)
    assert not torch.equal(batch.views[:, 0], batch.views[:, 1])


def plain(recipe, split, kind, rank, world, workers):
    """Images of a pass in evaluation, as the sums of their pixels."""
    source = opened(recipe, split, False)
    loader = build_eval_loader(recipe, source, CONFIG, 3, Rank(CPU, rank, world))
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
        loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU, rank, world))
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


def test_map_batches_do_not_depend_on_workers_and_resume_at_an_epoch(parquet, folders):
    runs = []
    for workers, start in ((0, 0), (2, 0), (0, 1)):
        recipe = recipe_for("map", parquet, folders, "-j", workers)
        loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU), start_epoch=start)
        batches = iter(loader)
        runs.append([fingerprint(next(batches)) for _ in range(12 - 6 * start)])
    assert runs[0] == runs[1]
    assert runs[0][6:] == runs[2]  # a run that starts at epoch 1 sees what the first would have seen there


def test_streams_resume_at_an_epoch(parquet, folders):
    recipe = recipe_for("stream", parquet, folders, "-j", 0)
    runs = []
    for start in (0, 1):
        batches = iter(build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU), start_epoch=start))
        runs.append([fingerprint(next(batches)) for _ in range(12 - 6 * start)])
    assert runs[0][6:] == runs[1]


def test_data_sorted_by_class_is_noticed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(stream, "BLOCK_RECORDS", 20)
    for name, labels in (("sorted", [n // 50 for n in range(200)]), ("mixed", [n % 4 for n in range(200)])):
        table = {"image": [{"bytes": image_bytes(n), "path": None} for n in range(200)], "label": labels}
        features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list("abcd")))
        (tmp_path / name).mkdir()
        for part in range(4):
            file = datasets.Dataset.from_dict(table, features=features).select(range(50 * part, 50 * part + 50))
            file.to_parquet(tmp_path / name / f"train-{part}.parquet")
        recipe = load_recipe(["--dataset", f"hfids/{tmp_path / name}", "-j", "1", "-b", "16"])
        caplog.clear()
        build_train_loader(recipe, opened(recipe), CONFIG, 4, Rank(CPU)).peek()
        assert ("looks sorted" in caplog.text) == (name == "sorted")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def write_labels(folder, labels, feature, images=None, shards=1):
    """Nameless images of these labels in parquet files."""
    folder.mkdir()
    images = images or [image_bytes(n) for n in range(len(labels))]
    table = {"image": [{"bytes": image, "path": None} for image in images], "label": labels}
    whole = datasets.Dataset.from_dict(table, features=datasets.Features(image=datasets.Image(), label=feature))
    for shard in range(shards):
        whole.shard(shards, shard, contiguous=True).to_parquet(folder / f"train-{shard:05d}-of-{shards:05d}.parquet")
    return folder


def without_images(kind, folder):
    """Flags for 40 images of which none can be read, and what the message says of the first."""
    datasets.disable_progress_bars()
    if kind == "folder":
        for number in range(40):
            path = folder / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(POINTER)
        return ["--data-dir", folder], r"training split gave no image.*first.*: [ab]/\d+.png \(not an image\)"
    images = [POINTER] * 20 + [image_bytes(n) if kind == "shard" else POINTER for n in range(20)]
    data = write_labels(folder / kind, [0, 1] * 20, datasets.Value("int64"), images, shards=2)
    if kind == "hfds":
        flags = ["--dataset", f"hfds/{data}", "--data-dir", folder / "cache"]
        return flags, r"training split gave no image.*first.*: sample \d+ \(not an image\)"
    return ["--dataset", f"hfids/{data}"], r"on rank [01] gave no image.*first.*: train-0000\d-of-00002.parquet row \d+"


@pytest.mark.parametrize(
    ("kind", "world", "workers"),
    [("folder", 1, 0), ("folder", 2, 2), ("hfds", 1, 1), ("stream", 1, 2), ("shard", 2, 1)],
)
def test_a_pass_without_an_image_ends_the_run_with_its_cause(kind, world, workers, tmp_path):
    """Every source: pointers of Git LFS in place of images, or a rank whose shard is broken."""
    flags, message = without_images(kind, tmp_path)
    recipe = load_recipe([*map(str, flags), "-b", "4", "-j", str(workers)])
    loaders = [build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU, rank, world)) for rank in range(world)]
    with pytest.raises(UserError, match=message) as info:
        deque(batch for loader in loaders for batch, _ in zip(loader, range(20), strict=False))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_whose_shard_is_empty_reads_another_one_in_the_next_pass(workers, tmp_path):
    data = write_labels(tmp_path / "data", list(range(20)), datasets.Value("int64"), shards=2)
    empty = datasets.Dataset.from_parquet(str(data / "train-00000-of-00002.parquet")).select([])
    empty.to_parquet(data / "train-00002-of-00003.parquet")
    recipe = load_recipe(["--dataset", f"hfids/{data}", "-b", "4", "-j", str(workers)])
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 20, Rank(CPU))
    seen = {t for batch, _ in zip(loader, range(40), strict=False) for t in batch.target.tolist()}
    assert seen == set(range(20)) and loader.skips.count == 0


@pytest.mark.parametrize("source", ["hfds", "hfids"])
def test_images_without_names_are_counted_one_by_one(source, tmp_path):
    datasets.disable_progress_bars()
    images = [b"broken" if number % 2 else image_bytes(number) for number in range(24)]
    data = write_labels(tmp_path / "data", [0, 1] * 12, datasets.Value("int64"), images)
    flags = ["--dataset", f"{source}/{data}", "-b", "4", "-j", "1"]
    flags += ["--data-dir", str(tmp_path / "cache")] if source == "hfds" else []
    recipe = load_recipe(flags)
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    for _ in zip(loader, range(12), strict=False):  # two passes
        pass
    assert loader.skips.count == 12 and len(set(loader.skips.names)) == 12
    recipe = load_recipe([*flags, "--max-data-errors", "11"])
    with pytest.raises(UserError, match="12 images could not be read, more than --max-data-errors 11"):
        for _ in build_eval_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU)):
            pass
