"""What follows an epoch, with validations whose results are given."""

import json
from types import SimpleNamespace

import pytest

from dccd_timm.batch import Progress
from dccd_timm.engine.loop import Start
from dccd_timm.engine.optim import Schedule
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.run import epoch as epoch_module
from dccd_timm.run.epoch import EpochEnd
from dccd_timm.run.resume import ResumePoint
from tests.engine.fakes import setup


@pytest.fixture
def end_of_epochs(tmp_path, monkeypatch, fresh_accelerator):
    """Handle epochs of given metrics; returns exported folders of each epoch, and what was published."""
    exported, published, made = [], [], []
    monkeypatch.setattr(epoch_module, "export", lambda model, folder, *more: exported.append(folder.name))
    monkeypatch.setattr(epoch_module, "push_interim", lambda recipe, training, folder, best, p: published.append(best))

    def handle(flags, metrics, epochs=None, val=True):
        _, task, _, accelerator = setup()
        loader = SimpleNamespace(
            skips=SimpleNamespace(images={"a.png": 1}), state=dict, batches_per_epoch=3, close=lambda: None
        )
        training = SimpleNamespace(
            task=task, loader=loader, schedule=Schedule(None, epochs or len(metrics)), data_config={},
            val=SimpleNamespace(skips=SimpleNamespace(images={"v.png": 1})) if val else None, answers=None,
        )  # fmt: skip
        splits = SimpleNamespace(train=SimpleNamespace(names=None))
        recipe = load_recipe(["--val-split", "test" if val else "", *flags.split()])
        end = EpochEnd(recipe, splits, training, tmp_path, accelerator, None, ResumePoint(Start()), tmp_path)
        made.append(end)
        results = iter(metrics)
        monkeypatch.setattr(epoch_module, "score", lambda *a, **k: next(results))
        found = []
        for number in range(len(metrics)):
            exported.clear()
            losses = {"loss": 1.0 if val else metrics[number]}
            end.handle(Progress(number, 3 * number + 3, losses, 0.1, 5.0, batches=3))
            found.append(list(exported))
        return end, found, published

    yield handle
    for end in made:
        end.signals.close()


def top1(*values):
    return [{"loss": 1 - value / 100, "top1": value, "top5": 90.0} for value in values]


def test_the_best_epoch_is_exported_and_the_last_always(end_of_epochs, tmp_path):
    end, exported, _ = end_of_epochs("", top1(50.0, 60.0, 55.0))
    assert exported == [["last", "best"], ["last", "best"], ["last"]]
    assert (end.best.epoch, end.best.metric, end.best.metrics["top5"]) == (1, 60.0, 90.0)
    rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert len(rows) == 4 and "eval_top1" in rows[0]
    saved = json.loads((tmp_path / "state" / "update-000000009" / "progress.json").read_text())
    assert saved["best"]["epoch"] == 1 and saved["complete"] and saved["skipped_images"] == 1
    assert saved["skipped_first"] == ["a.png"] and saved["seconds"] > 0


def test_without_validation_the_training_loss_decides(end_of_epochs):
    end, exported, _ = end_of_epochs("", [0.7, 0.9, 0.5], val=False)
    assert exported == [["last", "best"], ["last"], ["last", "best"]] and end.best.metrics == {}


def test_epochs_between_validations_are_not_compared_but_the_last_one_is_validated(end_of_epochs, tmp_path):
    _, exported, _ = end_of_epochs("--val-interval 2", top1(50.0, 60.0, 0.0), epochs=3)
    assert exported == [["last"], ["last", "best"], ["last", "best"]]  # validated: the second epoch, and the last


def test_the_best_so_far_is_published_at_its_interval_but_not_at_the_end(end_of_epochs):
    _, _, published = end_of_epochs("--push-to-hub a/b --hub-interval 2", top1(50.0, 40.0, 60.0, 70.0))
    assert [best.epoch for best in published] == [0]  # after the second epoch; the fourth goes with the report


def test_a_bug_of_an_interim_push_ends_no_training(end_of_epochs, monkeypatch, caplog, tmp_path):
    def fail(*arguments):
        raise KeyError("card")

    end, _, _ = end_of_epochs("--push-to-hub a/b --hub-interval 1", top1(50.0), epochs=3)
    monkeypatch.setattr(epoch_module, "push_interim", fail)
    monkeypatch.setattr(end.accelerator, "log", fail)
    monkeypatch.setattr(epoch_module, "score", lambda *a, **k: top1(60.0)[0])
    end.handle(Progress(1, 6, {"loss": 1.0}, 0.1, 5.0, batches=3))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [line.split(": a bug of dccd-timm")[0] for line in lines] == [
        "no interim push", "epoch 2 is not in the tracker",
    ]  # fmt: skip
    assert (tmp_path / "errors.log").is_file() and end.best.epoch == 1


def test_an_interrupted_validation_is_saved_as_an_epoch_that_is_not_over(end_of_epochs, tmp_path):
    with pytest.raises(SystemExit):
        end_of_epochs("", [None])
    saved = json.loads((tmp_path / "state" / "update-000000003" / "progress.json").read_text())
    assert not saved["complete"] and saved["batches"] == 3 and saved["best"] is None
    assert not (tmp_path / "summary.csv").exists()


def test_what_all_ranks_skipped_together_is_limited_after_each_epoch(end_of_epochs):
    """Each rank checks its own part while it reads; one image of the training was skipped here."""
    evaluated = top1(50.0)[0] | {"images": 10}
    end_of_epochs("--max-data-errors 1", [evaluated | {"skipped": 1}])
    with pytest.raises(UserError, match="2 images could not be read, more than --max-data-errors 1; the first: v.png"):
        end_of_epochs("--max-data-errors 1", [evaluated | {"skipped": 2}])
    with pytest.raises(UserError, match="1 images could not be read, more than --max-data-errors 0; the first: a.png"):
        end_of_epochs("--max-data-errors 0", [evaluated | {"skipped": 0}])
