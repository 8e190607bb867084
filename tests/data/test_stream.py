"""Streams: every image once over ranks and workers, in an order that a killed run goes on with exactly."""

import io
import json
import multiprocessing
import os
import random
import signal
import tarfile
import time

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from dccd_timm.data import build, stream
from dccd_timm.data.build import build_eval_loader, build_train_loader, open_split
from dccd_timm.data.sources.hfids import StreamSource
from dccd_timm.launch.failures import explain
from dccd_timm.recipe import load_recipe

CONFIG = dict(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)
CPU = torch.device("cpu")
IMAGES = 97
LAYOUTS = [(1, 0), (1, 2), (2, 2), (3, 1)]  # ranks, workers of each


def image_bytes(number, kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_numbered(folder, shards, kind="parquet", images=IMAGES, row_group=None):
    """Images whose class is their number, in ``shards`` files of unequal size."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.linspace(0, images, shards + 1).astype(int)
    cuts[1:-1] += np.arange(shards - 1) % 2  # unequal, none empty
    for shard in range(shards):
        numbers = range(cuts[shard], cuts[shard + 1])
        name = folder / f"train-{shard:05d}-of-{shards:05d}"
        if kind == "parquet":
            table = {"image": [{"bytes": image_bytes(n), "path": f"{n}.png"} for n in numbers], "label": list(numbers)}
            features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
            file = datasets.Dataset.from_dict(table, features=features)
            file.to_parquet(f"{name}.parquet", batch_size=row_group or 1000)
        else:
            with tarfile.open(f"{name}.tar", "w") as tar:
                for n in numbers:
                    for ending, data in (("jpg", image_bytes(n, "JPEG")), ("cls", str(n).encode())):
                        member = tarfile.TarInfo(f"{n:05d}.{ending}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return folder


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    datasets.disable_progress_bars()
    root, made = tmp_path_factory.mktemp("numbered"), {}

    def get(shards, kind="parquet", row_group=None):
        key = f"{kind}-{shards}-{row_group}"
        if key not in made:
            made[key] = write_numbered(root / key, shards, kind, row_group=row_group)
        return made[key]

    return get


def train_loader(folder, rank=0, world=1, workers=1, batch_size=1, state=None, start_epoch=0, seed=42, flags=()):
    recipe = load_recipe(
        ["--dataset", f"hfids/{folder}", "-j", str(workers), "-b", str(batch_size), "--seed", str(seed), *flags]
    )
    source = open_split(recipe, "train", True)
    return build_train_loader(recipe, source, CONFIG, 0, CPU, rank, world, start_epoch, state)


def one_pass(folder, rank, world, workers, epoch=0, seed=42):
    """Numbers of the images of one training pass of a rank, in the order in which they come."""
    loader = train_loader(folder, rank, world, workers, start_epoch=epoch, seed=seed).loader
    seen, over = [], set()
    for batch in loader:
        if batch.place["epoch"] > epoch:
            over.add(batch.worker)
        else:
            seen.append(batch.target.item())
        if len(over) == loader.num_workers:
            return seen


@pytest.mark.parametrize(("world", "workers"), LAYOUTS)
@pytest.mark.parametrize("shards", [1, 7, 8, 32])
def test_the_ranks_of_one_pass_together_read_each_image_once(shards, world, workers, numbered):
    folder = numbered(shards)
    passes = [[one_pass(folder, rank, world, workers, epoch) for rank in range(world)] for epoch in range(2)]
    for ranks in passes:
        assert sorted(n for rank in ranks for n in rank) == list(range(IMAGES))
    assert passes[0] != passes[1]
    assert passes[0][-1] == one_pass(folder, world - 1, world, workers)
    assert passes[0][-1] != one_pass(folder, world - 1, world, workers, seed=43)


@pytest.mark.parametrize(("world", "workers"), LAYOUTS)
@pytest.mark.parametrize(("shards", "kind"), [(1, "parquet"), (7, "parquet"), (5, "tar"), (1, "tar")])
def test_evaluation_reads_each_image_once(shards, kind, world, workers, numbered):
    recipe = load_recipe(["--dataset", f"hfids/{numbered(shards, kind)}", "-j", str(workers), "-b", "8"])
    seen = []
    for rank in range(world):
        loader = build_eval_loader(recipe, open_split(recipe, "train", False), CONFIG, 0, CPU, rank, world)
        seen += [n for batch in loader for n in batch.target.tolist()]
    assert sorted(seen) == list(range(IMAGES))


def test_few_shards_are_split_by_row_groups_or_read_by_fewer_workers(numbered, caplog):
    caplog.set_level("INFO")
    loader = train_loader(numbered(1, row_group=10), workers=3)
    assert loader.loader.num_workers == 3 and loader.layout["shards"] == 10 and not caplog.text
    assert train_loader(numbered(2), workers=3).loader.num_workers == 2
    assert "2 loader workers instead of 3: the stream has 2 shards" in caplog.text
    assert train_loader(numbered(7), workers=0).loader.num_workers == 1  # never in the main process


def sequence(folder, count, state, pipe, world, workers, kind):
    """Send ``count`` batches, each with the loader's state behind it; runs in a process of its own."""
    flags = ["--dccd-views", "2", "--kd-distill-type", "none"]
    args = dict(rank=world - 1, world=world, workers=workers, batch_size=3, state=state, flags=flags)
    if kind == "folder":
        recipe = load_recipe(["--data-dir", str(folder), "-j", str(workers), "-b", "3", *flags])
        loader = build_train_loader(
            recipe, open_split(recipe, "train", True), CONFIG, 0, CPU, world - 1, world, 0, state
        )
    else:
        loader = train_loader(folder, **args)
    for number, batch in enumerate(loader):
        if number == count:
            break
        pipe.send((batch.target.tolist(), batch.views.sum((-3, -2, -1)).tolist(), json.dumps(loader.state())))
    pipe.close()


def started(*arguments):
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=sequence, args=(*arguments[:3], writing, *arguments[3:]))
    process.start()
    writing.close()
    return process, reading


@pytest.mark.parametrize(
    ("kind", "shards", "world", "workers"),
    [
        ("parquet", 7, 1, 0),
        ("parquet", 7, 1, 2),
        ("parquet", 8, 2, 2),
        ("tar", 5, 1, 3),
        ("parquet", 1, 3, 1),
        ("folder", 1, 1, 0),
        ("folder", 1, 2, 2),
    ],
)
def test_killed_at_any_moment_it_goes_on_with_the_very_next_images(kind, shards, world, workers, numbered, tmp_path):
    """Four SIGKILLs in each of seven layouts; ids and augmentations equal those of a run that nobody killed."""
    if kind == "folder":
        folder = tmp_path
        for n in range(IMAGES):
            path = folder / "train" / f"class{n % 5}" / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(n))
    else:
        folder = numbered(shards, kind)
    total = 90  # batches: several epochs
    process, pipe = started(folder, total, None, world, workers, kind)
    expected = [pipe.recv() for _ in range(total)]
    process.join()
    dice = random.Random(f"{kind}{shards}{world}{workers}")
    seen, state = [], None
    for cut in [*(dice.randint(1, total // 4) for _ in range(4)), total]:
        process, pipe = started(folder, total, state, world, workers, kind)
        for _ in range(min(cut, total - len(seen))):
            targets, sums, saved = pipe.recv()
            seen.append((targets, sums, saved))
            state = json.loads(saved)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert len(seen) == total
    assert [s[:2] for s in seen] == [e[:2] for e in expected]


def test_a_position_of_another_layout_is_not_used(numbered, caplog):
    loader = train_loader(numbered(7), workers=2, batch_size=4)
    batches = iter(loader)
    next(batches)
    state = json.loads(json.dumps(loader.state()))
    again = train_loader(numbered(7), workers=1, batch_size=4, state=state)
    assert "cannot go on exactly (workers 2 -> 1)" in caplog.text and again.given == 0


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
        build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 4, CPU).peek()
        assert ("looks sorted" in caplog.text) == (name == "sorted")


def test_a_worker_that_is_stuck_ends_the_run_with_one_line(numbered, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_GRACE", 0)
    monkeypatch.setattr(StreamSource, "rows", lambda *_: time.sleep(600))
    loader = train_loader(numbered(1), flags=("--data-timeout", "1"))
    with pytest.raises(RuntimeError) as stuck:
        loader.peek()
    recipe = load_recipe(["--dataset", "hfids/x", "--data-timeout", "1"])
    line = explain(stuck.value, recipe, tmp_path)
    assert "gave no batch for more than 1 s (--data-timeout)" in line and "hfids/x" in line
