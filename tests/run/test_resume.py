"""Where a training begins, from what was saved; whole resumes are in test_train.py and tests/processes."""

import json
import logging
from types import SimpleNamespace

import pytest
from accelerate import Accelerator

from dccd_timm.engine.loop import Start
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import SettingsChange
from dccd_timm.run import resume
from dccd_timm.run.best import Best
from dccd_timm.run.resume import ResumePoint, find_resume_point
from dccd_timm.run.state import SavedProgress, SavedRank

METER = {"names": ["loss"], "sums": [1.5], "count": 2}
POSITION = {"given": 7}


@pytest.fixture
def find(tmp_path, monkeypatch, fresh_accelerator):
    """The resume point of a saved run with these flags, as if its state were whole."""
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(resume, "newest_state", lambda run: run)

    def find(flags="--resume auto --experiment run", **saved):
        values = dict(epoch=4, complete=False, updates=50, batches=2, world=1, skipped_updates=3) | saved
        (tmp_path / "progress.json").write_text(json.dumps(SavedProgress(**values).to_json()))
        SavedRank(position=POSITION, meter=METER, skipped={"a.png": 1}).write(tmp_path, 0)
        return find_resume_point(load_recipe(flags.split()), tmp_path, Accelerator(cpu=True))

    return find


def test_a_new_run_begins_at_its_first_epoch(find):
    assert find("") == ResumePoint(Start(0))
    assert find("--start-epoch 2") == ResumePoint(Start(2))


def test_inside_an_epoch_it_continues_after_the_last_batch(find):
    point = find()
    assert point.start == Start(4, 2, METER, skipped_updates=3)
    assert point.position == POSITION and point.skipped_images == {"a.png": 1}


def test_after_an_epoch_it_continues_with_the_next(find):
    point = find(complete=True)
    assert point.start == Start(5, skipped_updates=3) and point.position == POSITION


def test_a_launcher_that_restarts_resumes_without_a_flag(find, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert find("").start.epoch == 4


@pytest.mark.parametrize(("complete", "epoch"), [(False, 4), (True, 5)])
def test_another_number_of_processes_begins_an_epoch_again(complete, epoch, find, caplog):
    caplog.set_level(logging.WARNING)
    point = find(world=2, complete=complete)
    assert point.start == Start(epoch, skipped_updates=3) and point.position is None
    assert "saved by 2 processes and resumed by 1" in caplog.text and f"with epoch {epoch + 1}" in caplog.text


def test_a_given_epoch_wins_over_the_saved_one(find):
    point = find("--resume auto --experiment run --start-epoch 1")
    assert point.start == Start(1, skipped_updates=3) and point.position is None and point.state


def test_another_accumulation_begins_an_interrupted_epoch_again(find, caplog):
    saved = {"settings": {"grad_accum_steps": 2}}
    assert find(complete=True, **saved).position == POSITION  # whole epochs have whole updates
    caplog.set_level(logging.WARNING)
    point = find(**saved)
    assert point.start == Start(4, skipped_updates=3) and point.position is None
    assert "epoch 5 starts again" in caplog.text


@pytest.mark.parametrize(("resumed", "batches"), [(True, 2), (False, 0)])
def test_an_epoch_begins_at_its_beginning_where_its_data_do(resumed, batches, find):
    point = find().at_whole_epoch(SimpleNamespace(loader=SimpleNamespace(resumed=resumed)))
    assert point.start == Start(4, batches, METER if resumed else {}, skipped_updates=3)


BEST = Best(1, 60.0, {"top1": 60.0})


def test_the_best_score_counts_while_it_is_measured_alike(find):
    same = find(best=BEST, settings={"lr": 0.5, "epochs": 3})
    assert same.best == BEST and same.changes == {"lr": [0.5, None], "epochs": [3, 300]}
    assert same.history == [SettingsChange(epoch=4, settings=same.changes)]
    other = find(best=BEST, settings={"val_split": "test"}, changes=[SettingsChange(epoch=1, settings={"lr": [1, 2]})])
    assert other.best is None and [change.epoch for change in other.history] == [1, 4]
    other.check_epochs(5)
    with pytest.raises(UserError, match="--val-split test -> validation: .* no epoch is left"):
        other.check_epochs(4)


def test_what_cannot_change_is_refused(find):
    with pytest.raises(UserError, match="--opt adamw -> sgd"):
        find(settings={"opt": "adamw"})
