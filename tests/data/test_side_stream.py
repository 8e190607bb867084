"""The side stream: what waits for what, and that batches, states and counts are those without it."""

import contextlib
import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from dccd_timm.batch import Batch
from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.collate import SkipCounter
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.loader import TrainLoader, TrainPosition
from dccd_timm.data.side_stream import SideStream, side_stream
from dccd_timm.errors import UserError
from tests.data.loaders import CONFIG, CPU, opened, recipe_for


class Module:
    """What torch.cuda has of streams, with a list of what happened."""

    def __init__(self):
        self.events, self.now = [], "training"

    def Stream(self, device):
        return self.named("side")

    def named(self, name):
        return SimpleNamespace(
            name=name, wait_stream=lambda other: self.events.append(f"{name} waits for {other.name}")
        )

    def current_stream(self, device):
        return self.named(self.now)

    @contextlib.contextmanager
    def stream(self, stream):
        before, self.now = self.now, stream.name
        yield
        self.now = before


def test_a_block_waits_for_what_was_queued_and_the_training_for_the_block(monkeypatch):
    module = Module()
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    side = SideStream(torch.device("cuda"))
    for _ in range(2):
        with side:
            module.events.append(f"work on {module.now}")
        module.events.append(f"step on {module.now}")
        side.join()
    once = ["side waits for training", "work on side", "step on training", "training waits for side"]
    assert module.events == once * 2
    with pytest.raises(ValueError), side:
        raise ValueError
    assert module.now == "training"


def test_the_cpu_and_devices_without_streams_have_none(monkeypatch):
    assert side_stream(CPU) is None
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert side_stream(torch.device("mps")) is None
    monkeypatch.setattr(torch, "get_device_module", lambda device: Module())
    assert isinstance(side_stream(torch.device("cuda")), SideStream)


class Side:
    """A side stream of the CPU, which writes down when it is used."""

    def __init__(self, events):
        self.events = events

    def __enter__(self):
        self.events.append("prepare")

    def __exit__(self, *error):
        pass

    def join(self):
        self.events.append("join")


def walk(loader, side, batches):
    """Batches with the loader's state and its count of skipped images at each, and what happened in between."""
    events, given = [], []
    loader.side = Side(events) if side else None
    for number, batch in zip(range(batches), loader, strict=False):
        events.append("give")
        given.append((batch.views, batch.target, copy.deepcopy(loader.state()), loader.skips.count))
        if (number + 1) % loader.batches_per_epoch == 0:
            loader.prepare.set_epoch((number + 1) // loader.batches_per_epoch)
    return given, events


def assert_same(first, second):
    assert len(first) == len(second)
    for (views, target, state, skipped), (views2, target2, state2, skipped2) in zip(first, second, strict=True):
        assert torch.equal(views, views2) and torch.equal(target, target2)
        assert state == state2 and skipped == skipped2


def test_batches_and_states_are_those_without_it(folders):
    flags = ["--reprob", "0.5", "--mixup", "0.5", "--mixup-off-epoch", "1", "--smoothing", "0"]
    recipe = recipe_for("map", None, folders, "-j", 0, *flags)

    def loader(state=None):
        return build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU), 0, state)

    alone, nothing = walk(loader(), False, 9)
    beside, events = walk(loader(), True, 9)
    assert_same(alone, beside)
    assert nothing == ["give"] * 9
    # each batch is prepared before the one in front is given, but for the first of an epoch of six
    assert "-".join(events).split("-join-") == [*["prepare-give"] * 5, "give-prepare-give", *["prepare-give"] * 2]
    mixed, whole = beside[5][1], beside[6][1]
    assert (mixed.amax(1) < 1).any() and (whole.amax(1) == 1).all()
    resumed, _ = walk(loader(beside[3][2]), True, 2)
    assert_same(beside[4:6], resumed)


def test_positions_and_skipped_images_count_when_their_batch_is_given():
    """A stream of two workers, in which every second batch has skipped images, or has none but such."""

    def loader():
        batches = [
            Batch.empty([(f"{n}", 8)]) if n % 6 == 5 else
            Batch(torch.full((2, 1, 3, 4, 4), n), torch.zeros(2, dtype=torch.long), [(f"{n}", 1)] if n % 2 else [],
                  worker=n % 2, position=dict(epoch=0, shard=n % 2, row=n))
            for n in range(12)
        ]  # fmt: skip
        position = TrainPosition(dict(workers=2, batch_size=2, world=1))
        source = SimpleNamespace(num_samples=1000, shuffle_block=0)
        return TrainLoader(source, batches, 7, ViewPreparer(CPU, (0.0,), (1.0,)), SkipCounter(100), position)

    (alone, _), (beside, events) = walk(loader(), False, 18), walk(loader(), True, 18)
    assert_same(alone, beside)
    assert "prepare" in events and beside[4][3] == 2 and beside[5][3] == 10


def test_bad_data_stops_the_run_when_its_batch_is_due():
    good = Batch(torch.zeros(2, 1, 3, 4, 4), torch.zeros(2, dtype=torch.long))
    bad = replace(good, fatal="class index 9")
    position = TrainPosition(dict(workers=1, batch_size=2, world=1))
    source = SimpleNamespace(num_samples=1000, shuffle_block=0)
    loader = TrainLoader(source, [good, bad], 9, ViewPreparer(CPU, (0.0,), (1.0,)), SkipCounter(1), position)
    loader.side = Side([])
    batches = iter(loader)
    next(batches)
    with pytest.raises(UserError, match="class index 9"):
        next(batches)
