"""Curves through accelerate's trackers."""

import pytest
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dccd_timm.engine.trackers import start_trackers, stop_trackers
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe


def log(folder, values, first_step):
    recipe = load_recipe(["--log-with", "tensorboard", "--device", "cpu"])
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=folder.parent)
    start_trackers(accelerator, recipe, folder)
    for step, value in enumerate(values, first_step):
        accelerator.log({"loss": value}, step=step)
    stop_trackers(accelerator, folder)
    assert accelerator.trackers == []


def test_a_resumed_run_continues_its_curve(tmp_path, fresh_accelerator):
    run = tmp_path / "run"
    log(run, [3.0, 2.0], 1)
    log(run, [1.0], 3)
    events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 3), (2, 2), (3, 1)]


def test_a_control_has_a_curve_of_its_own(tmp_path, fresh_accelerator):
    log(tmp_path / "run", [1.0], 1)
    log(tmp_path / "run" / "control", [2.0], 1)
    for folder, value in ((tmp_path / "run", 1), (tmp_path / "run" / "control", 2)):
        assert [e.value for e in EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("loss")] == [value]


def test_without_a_tracker_nothing_is_written(tmp_path, fresh_accelerator):
    start_trackers(Accelerator(cpu=True), load_recipe([]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_does_not_start_is_one_line(tmp_path, fresh_accelerator, monkeypatch):
    accelerator = Accelerator(cpu=True)

    def fail(*arguments):
        raise RuntimeError("no\nconnection")

    monkeypatch.setattr(accelerator, "init_trackers", fail)
    with pytest.raises(UserError, match="--log-with tensorboard: no connection"):
        start_trackers(accelerator, load_recipe(["--log-with", "tensorboard"]), tmp_path)


def test_a_tracker_that_does_not_close_ends_no_run(tmp_path, caplog):
    class Tracker:
        name = "wandb"

        def finish(self):
            raise ConnectionError("no connection")

    accelerator = Accelerator(cpu=True)
    accelerator.trackers = [Tracker()]
    stop_trackers(accelerator, tmp_path)
    assert "tracker wandb was not closed: no connection" in caplog.text and accelerator.trackers == []
