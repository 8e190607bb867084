"""Streams: every image once over ranks and workers, in an order that a killed run resumes exactly."""

import json
import multiprocessing
import os
import random
import signal

import pytest

from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.recipe import load_recipe
from tests.data.loaders import CONFIG, CPU, IMAGES, image_bytes, opened, train_loader

LAYOUTS = [(1, 0), (1, 2), (2, 2), (3, 1)]  # ranks, workers of each


def one_pass(folder, rank, world, workers, epoch=0, seed=42):
    """Numbers of the images of one training pass of a rank, in the order in which they come."""
    loader = train_loader(folder, rank, world, workers, start_epoch=epoch, seed=seed).loader
    seen, over = [], set()
    for batch in loader:
        if batch.position["epoch"] > epoch:
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
        loader = build_eval_loader(recipe, opened(recipe, is_training=False), CONFIG, 0, Rank(CPU, rank, world))
        seen += [n for batch in loader for n in batch.target.tolist()]
    assert sorted(seen) == list(range(IMAGES))


def sequence(folder, count, state, pipe, world, workers, kind):
    """Send ``count`` batches, each with the loader's state after it; runs in a process of its own."""
    flags = ["--dccd-views", "2", "--kd-distill-type", "none"]
    args = dict(rank=world - 1, world=world, workers=workers, batch_size=3, state=state, flags=flags)
    if kind == "folder":
        recipe = load_recipe(["--data-dir", str(folder), "-j", str(workers), "-b", "3", *flags])
        loader = build_train_loader(recipe, opened(recipe), CONFIG, 0, Rank(CPU, world - 1, world), 0, state)
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
def test_killed_at_any_moment_it_resumes_with_the_very_next_images(kind, shards, world, workers, numbered, tmp_path):
    """Four SIGKILLs in each of seven layouts; ids and augmentations equal those of a run that was not killed."""
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
