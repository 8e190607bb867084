"""What the training loop yields, and that a training in parts is the training in one."""

import logging

import pytest
import torch
from tqdm import tqdm

from dccd_timm.engine.loop import BAR, Start, train
from dccd_timm.engine.optim import Schedule
from tests.engine.fakes import Loader, batches, setup


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerator):
    pass


def run(loader, *flags, epochs=2, start=None, stop_after=None, weights=None):
    """The task, and all that the loop yields until its end or until it asks to stop."""
    recipe, task, optimizer, accelerator = setup(*flags)
    if weights:
        task.trainable_module.load_state_dict(weights)
    calls = []

    def stopping():
        calls.append(1)
        return stop_after is not None and len(calls) > stop_after

    found = []
    loop = train(task, loader, optimizer, Schedule(None, epochs), recipe, accelerator, start or Start(), stopping)
    for progress in loop:
        found.append(progress)
        if progress.stop:
            break
    return task, found


def test_it_yields_after_each_epoch():
    loader = Loader(batches(3))
    _, (first, second) = run(loader, "--log-interval", 100)
    assert [(p.epoch, p.updates, p.batches, p.complete, p.stop) for p in (first, second)] == [
        (0, 3, 3, True, False), (1, 6, 3, True, False),
    ]  # fmt: skip
    assert loader.epochs == [0, 1]  # augmentations change with the epoch
    assert second.losses["loss"] < first.losses["loss"] and first.lr == pytest.approx(0.1)
    assert first.views_per_second > 0


def test_it_yields_for_recovery_inside_an_epoch_but_not_at_its_end():
    _, found = run(Loader(batches(4)), "--recovery-interval", 2, "--grad-accum-steps", 1, epochs=1)
    assert [(p.updates, p.complete) for p in found] == [(2, False), (4, True)]


@pytest.mark.parametrize("stop_after", [0, 1, 2, 4, 5])
def test_a_training_in_two_parts_is_the_training_in_one(stop_after):
    expected, whole = run(Loader(batches(3)), epochs=3)
    loader = Loader(batches(3))
    task, first = run(loader, epochs=3, stop_after=stop_after)
    assert first[-1].stop
    last = first[-1]
    start = Start(last.epoch + 1) if last.complete else Start(last.epoch, last.batches, last.meter)
    loader.batches = loader.batches[start.batches :] + loader.batches[: start.batches]  # where the data stands
    task, second = run(loader, epochs=3, start=start, weights=task.trainable_module.state_dict())
    for got, wanted in zip(task.trainable_module.parameters(), expected.trainable_module.parameters(), strict=True):
        assert torch.equal(got, wanted)
    done = {p.epoch: p for p in (*first, *second) if p.complete}
    assert {epoch: p.losses for epoch, p in done.items()} == {p.epoch: p.losses for p in whole}


def test_a_schedule_of_updates_is_asked_after_each_of_them():
    class Recorded:
        num_epochs, updates, resumed = 1, [], None

        def resume(self, epoch, updates):
            self.resumed = epoch, updates

        def end_update(self, updates):
            self.updates.append(updates)

    recipe, task, optimizer, accelerator = setup("--grad-accum-steps", 2)
    schedule = Recorded()
    list(
        train(
            task,
            Loader(batches(6)),
            optimizer,
            schedule,
            recipe,
            accelerator,
            Start(0, 2, {"names": [], "sums": [], "count": 0}),
            lambda: False,
        )
    )
    assert schedule.resumed == (0, 1) and schedule.updates == [2, 3]  # updates, not batches


def test_skipped_updates_continue_the_count_of_the_run_before():
    bad = batches(3)
    bad[1].views[0] = torch.nan
    _, (progress,) = run(Loader(bad), "--nonfinite", "skip", epochs=1)
    assert progress.skipped_updates == 1
    _, (progress,) = run(Loader(bad), "--nonfinite", "skip", epochs=1, start=Start(skipped_updates=4))
    assert progress.skipped_updates == 5


def test_the_log_names_each_loss_at_its_interval(caplog):
    caplog.set_level(logging.INFO)
    run(Loader(batches(5)), "--log-interval", 2, epochs=1)
    lines = [record.getMessage() for record in caplog.records if record.name == "dccd_timm.engine.loop"]
    assert [line.split("  ")[:2] for line in lines] == [["epoch 1/1", "update 2"], ["epoch 1/1", "update 4"]]
    assert all("loss " in line and "views/s" in line for line in lines)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_progress_bar_keeps_its_bar(columns):
    shown = tqdm.format_meter(
        1234, 5004, 900, ncols=columns, prefix="epoch 10/100", bar_format=BAR, postfix="loss 1.234, 1234 views/s"
    )
    assert len(shown) == columns and len(shown.split("|")[1]) >= 8 and shown.endswith("views/s]")
