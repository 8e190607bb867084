"""Saved states: whole or not at all, and the newest ones are kept."""

import json
import logging

import pytest
import torch
from timm.models import create_model
from timm.task import ClassificationTask

from dccd_timm.errors import UserError
from dccd_timm.run.best import Best
from dccd_timm.run.state import (
    SavedProgress,
    SavedRank,
    keep,
    load_state,
    newest_state,
    record_best,
    save_state,
    skipped_images,
)
from tests.engine.fakes import setup


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerator):
    pass


def progress(updates, **more):
    return SavedProgress(epoch=1, complete=True, updates=updates, batches=3, world=1, **more)


def rank(**skipped):
    return SavedRank(position={"given": 3}, meter={"names": [], "sums": [], "count": 0}, skipped=skipped)


def ema_task():
    _, task, _, accelerator = setup()
    task.setup_ema(decay=0.5)
    return task, accelerator


def save(run, task, accelerator, updates, num_kept=10, **more):
    save_state(run, task, accelerator, progress(updates, **more), rank(), num_kept)
    return run / "state" / f"update-{updates:09d}"


def test_what_is_saved_is_restored(tmp_path):
    task, accelerator = ema_task()
    with torch.no_grad():
        for parameter in task.get_trainable_module(ema=True).parameters():
            parameter.fill_(7)
    state = save(tmp_path, task, accelerator, 5, best=Best(1, 60.0, {"top1": 60.0}), seconds=12.5)
    expected = [p.clone() for p in task.trainable_module.parameters()]
    drawn = torch.rand(3)  # the random numbers continue too
    with torch.no_grad():
        for module in (task.trainable_module, task.get_trainable_module(ema=True)):
            for parameter in module.parameters():
                parameter.zero_()
    load_state(state, task, accelerator, with_optimizer=True)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(a, b) for a, b in zip(task.trainable_module.parameters(), expected, strict=True))
    assert all((p == 7).all() for p in task.get_trainable_module(ema=True).parameters())
    assert SavedProgress.read(state) == progress(5, number=1, best=Best(1, 60.0, {"top1": 60.0}), seconds=12.5)
    assert SavedRank.read(state, 0) == rank() and SavedRank.read(state, 1) is None


def test_the_newest_whole_state_is_found_and_damaged_ones_are_named(tmp_path, caplog):
    assert newest_state(tmp_path) is None
    task, accelerator = ema_task()
    first, second = save(tmp_path, task, accelerator, 9), save(tmp_path, task, accelerator, 10)
    assert newest_state(tmp_path) == second
    (second / "model.safetensors").write_bytes(b"half")
    caplog.set_level(logging.WARNING)
    assert newest_state(tmp_path) == first and f"{second} is damaged (model.safetensors" in caplog.text
    (first / "sha256.json").unlink()
    with pytest.raises(UserError, match="none of its 2 saved states is whole"):
        newest_state(tmp_path)


def test_the_newest_states_are_kept(tmp_path):
    for updates in (5, 40, 300):
        (tmp_path / "state" / f"update-{updates:09d}").mkdir(parents=True)
    keep(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["update-000000040", "update-000000300"]
    task, accelerator = ema_task()
    save(tmp_path, task, accelerator, 301, num_kept=1)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["update-000000301"]


def test_a_state_that_cannot_be_written_leaves_none(tmp_path, monkeypatch):
    task, accelerator = ema_task()

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(accelerator, "save_state", fail)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, task, accelerator, 5)
    assert list((tmp_path / "state").iterdir()) == []


def test_a_state_of_another_network_or_without_a_part_is_one_line(tmp_path):
    task, accelerator = ema_task()
    state = save(tmp_path, task, accelerator, 5)
    other = ClassificationTask(create_model("test_resnet", num_classes=2), device=torch.device("cpu"), verbose=False)
    with pytest.raises(UserError, match="does not fit this run's settings"):
        load_state(state, other, accelerator, with_optimizer=False)
    (state / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"nothing to resume in .*ema\.safetensors"):
        load_state(state, task, accelerator, with_optimizer=True)


def test_a_state_of_an_older_version_loads(tmp_path):
    """It counts neither seconds nor what was skipped."""
    old = {"epoch": 1, "complete": False, "updates": 5, "batches": 2, "meter": {"names": ["loss"], "sums": [1.0], "count": 2},
           "world": 1, "best": {"epoch": 0, "metric": 50.0, "metrics": {"top1": 50.0}}, "scheduler": {}}  # fmt: skip
    (tmp_path / "progress.json").write_text(json.dumps(old))
    loaded = SavedProgress.read(tmp_path)
    assert loaded.best == Best(0, 50.0, {"top1": 50.0}) and loaded.meter == old["meter"]
    assert (loaded.seconds, loaded.skipped_updates, loaded.skipped_images, loaded.skipped_first) == (0, 0, 0, [])
    (tmp_path / "data_rank0.json").write_text(json.dumps({"given": 3, "meter": old["meter"]}))
    assert SavedRank.read(tmp_path, 0) == SavedRank(position={"given": 3}, meter=old["meter"])


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_skipped_image_is_counted_once_whatever_the_number_of_ranks(world, tmp_path):
    for number in range(3):
        rank(**{f"image {number}": 1, f"shard {number}": 50}).write(tmp_path, number)
    parts = [skipped_images(tmp_path, number, world) for number in range(world)]
    assert sum(sum(part.values()) for part in parts) == 153
    assert len({name for part in parts for name in part}) == sum(map(len, parts)) == 6


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_weights_that_are_used_at_two_places_come_back(with_optimizer, tmp_path):
    """As CoaT's; accelerate writes them once."""
    _, task, _, accelerator = setup()
    task.trainable_module.again = task.trainable_module.fc
    state = save(tmp_path, task, accelerator, 5)
    expected = task.trainable_module.fc.weight.detach().clone()
    torch.nn.init.zeros_(task.trainable_module.fc.weight)
    load_state(state, task, accelerator, with_optimizer)
    assert torch.equal(task.trainable_module.fc.weight, expected)


def test_the_best_student_chosen_after_the_last_state_is_recorded_in_it(tmp_path):
    task, accelerator = ema_task()
    save(tmp_path, task, accelerator, 5, best=Best(0, 50.0))
    state = save(tmp_path, task, accelerator, 10, best=Best(1, 60.0, weights="ema"))
    record_best(tmp_path, Best(2, 70.0, weights="raw"))
    assert newest_state(tmp_path) == state  # whole: its checksums fit
    assert SavedProgress.read(state) == progress(10, number=2, best=Best(2, 70.0, weights="raw"))
    load_state(state, task, accelerator, with_optimizer=True)


def write_progress(run, name, **values):
    (run / "state" / name).mkdir(parents=True)
    saved = dict(epoch=1, complete=True, updates=5, batches=3, world=1) | values
    (run / "state" / name / "progress.json").write_text(json.dumps(saved))
    (run / "state" / name / "sha256.json").write_text("{}")
    return run / "state" / name


def test_the_newest_state_is_the_one_written_last_though_updates_fall(tmp_path):
    """A larger batch makes fewer updates of an epoch: 36 were written before 12 and 16."""
    task, accelerator = ema_task()
    for updates in (18, 36, 12, 16):
        newest = save(tmp_path, task, accelerator, updates, num_kept=3)
        assert newest_state(tmp_path) == newest
    assert sorted(p.name[-2:] for p in (tmp_path / "state").iterdir()) == ["12", "16", "36"]


def test_states_of_older_versions_are_ordered_by_epoch_and_come_before_numbered_ones(tmp_path):
    write_progress(tmp_path, "update-000000036", epoch=1)
    later = write_progress(tmp_path, "update-000000016", epoch=3)
    assert newest_state(tmp_path) == later
    numbered = write_progress(tmp_path, "update-000000004", epoch=0, number=1)
    assert newest_state(tmp_path) == numbered
    (write_progress(tmp_path, "update-000000099") / "progress.json").write_text("{")
    assert newest_state(tmp_path) == numbered  # what cannot be read is tried last, and deleted first
    keep(tmp_path, 2)
    assert sorted(p.name[-2:] for p in (tmp_path / "state").iterdir()) == ["04", "16"]


def test_an_average_that_begins_with_a_resume_begins_at_the_student(tmp_path):
    _, task, _, accelerator = setup()
    state = save(tmp_path, task, accelerator, 5)
    task.setup_ema(decay=0.5)
    with torch.no_grad():
        for parameter in task.get_trainable_module(ema=True).parameters():
            parameter.zero_()
    load_state(state, task, accelerator, with_optimizer=True)
    average, plain = task.get_trainable_module(ema=True).module, task.trainable_module
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), plain.parameters(), strict=True))
