"""Loaders: every image once, the same augmentation on any number of workers, batches never torn."""

import weakref
from collections import Counter, deque

import datasets
import pytest
import torch

from dccd_timm.data import stream
from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES
from tests.data.loaders import CPU, image_bytes, opened, recipe_for, train_loader

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


def test_the_first_batch_is_given_once_and_not_kept(folders):
    recipe = recipe_for("map", None, folders, "-j", 0)
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    first = loader.peek().views
    kept, batches = weakref.ref(first), iter(loader)
    assert next(batches).views is first
    del first
    next(batches)
    assert kept() is None


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


def views_by_image(epochs, world=1, **given):
    """The images of each of the first ``epochs`` in their order, and the views of each by its number."""
    orders, views = [[] for _ in range(epochs)], [{} for _ in range(epochs)]
    for rank in range(world):
        loader = train_loader(rank=rank, world=world, **given)
        batches = iter(loader)
        for epoch in range(epochs):
            for _ in range(loader.batches_per_epoch):
                batch = next(batches)
                orders[epoch] += batch.target.tolist()
                views[epoch] |= dict(zip(batch.target.tolist(), batch.views, strict=True))
        loader.close()
    return orders, views


def same_views(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[number], second[number]) for number in first)


VARIED = ["--dccd-views", 3, "--dccd-view-aug", "near", "--reprob", 0.7, "--kd-model-name", "resnet18"]
VARIED = [*map(str, VARIED), "--kd-distill-type", "dccd"]


@pytest.mark.parametrize("kind", ["folder", "stream"])
def test_the_views_of_an_epoch_come_again_after_the_period_in_another_order(kind, numbered, tmp_path):
    """Crops and colours from the workers, erased boxes and near copies from the device: 96 images, 12 to a batch."""
    folder, images = numbered(1, row_group=10), 96
    flags = [*VARIED, "--dccd-view-period", "2", "--train-batches-per-epoch", "8"]
    if kind == "folder":
        for number in range(images):
            (tmp_path / f"train/{number:03d}").mkdir(parents=True)
            (tmp_path / f"train/{number:03d}/{number}.png").write_bytes(image_bytes(number))
        flags += ["--dataset", "", "--data-dir", str(tmp_path)]
    given = dict(folder=folder, workers=int(kind == "stream"), batch_size=12, flags=flags)
    orders, views = views_by_image(4, **given)
    if kind == "folder":  # the passes of a stream, over 97 images, go on beyond the end of an epoch
        assert same_views(views[0], views[2]) and same_views(views[1], views[3])
    for number in views[0].keys() & views[2].keys() & views[1].keys():
        assert torch.equal(views[0][number], views[2][number])
        assert not torch.equal(views[0][number], views[1][number])
    assert orders[0] != orders[2]
    flags[flags.index("--dccd-view-period") + 1] = "0"
    assert views_by_image(3, **given)[0] == orders[:3]
    flags[flags.index("--dccd-view-period") + 1] = "2"
    other = views_by_image(1, world=2, **{**given, "workers": 2, "batch_size": 6})[1][0]
    for number in other:  # a worker with fewer shards has begun its next pass
        assert any(torch.equal(other[number], known[number]) for known in views if number in known)
    # resumed in the middle of an epoch that repeats views
    loader = train_loader(**given)
    batches = iter(loader)
    for _ in range(19):
        next(batches)
    state = loader.state()
    expected = next(batches)
    loader.close()
    resumed = train_loader(state=state, **given)
    assert torch.equal(next(iter(resumed)).views, expected.views)


def test_a_period_needs_images_with_numbers(parquet, folders):
    recipe = recipe_for("map", parquet, folders, "--dccd-view-period", 2)
    source = opened(recipe)
    source.numbered = False
    with pytest.raises(UserError, match="--dccd-view-period needs images with numbers.*wds/ and tfds/ have none"):
        build_train_loader(recipe, source, CONFIG, 3, Rank(CPU))
