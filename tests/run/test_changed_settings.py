"""Whole trainings that are resumed with other settings: what the updates use, what is counted, what is compared."""

import csv
import json
import shlex
import shutil

import pytest
import yaml
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.run.train import train
from tests.conftest import write_folders
from tests.run.test_train import Interference, Recorder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("images"), per_class=(8, 3))


@pytest.fixture
def steps():
    """Hyperparameters of the last group, that of the weights that decay, in each update."""
    seen = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(dict(optimizer.param_groups[-1])))
    yield seen
    hook.remove()


@pytest.fixture
def start(images, tmp_path, fresh_accelerator):
    """A function that trains one epoch of 4 updates into ``run``, or with ``--resume`` whatever is given."""
    flags = [
        "--data-dir", images, "--model", "test_resnet", "--img-size", 32, "-b", 6, "-j", 0, "--epochs", 1, "--lr", 0.05,
        "--device", "cpu", "--warmup-epochs", 0, "--output", tmp_path, "--sched", "none",
    ]  # fmt: skip

    def start(*more):
        given = [] if "--resume" in more else [*flags, "--experiment", "run"]
        return train(load_recipe([str(word) for word in (*given, *more)]), Recorder())

    return start


def epochs(run):
    with (run / "summary.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [("--lr 0.001", "lr", 0.001), ("--weight-decay 0.1", "weight_decay", 0.1), ("--momentum 0.5", "momentum", 0.5),
     ("--sched plateau --lr 0.001", "lr", 0.001), ("-b 3 --lr-base 0.2 --lr=", "lr", 0.2 * 3 / 256)],
)  # fmt: skip
def test_a_new_value_takes_effect_and_is_recorded(flags, name, value, start, steps, tmp_path, caplog):
    start()
    steps.clear()
    report = start("--resume", tmp_path / "run", "--epochs", 2, *flags.split())
    assert {step[name] for step in steps} == {value}
    line = next(r.message for r in caplog.records if "resuming with other settings" in r.message)
    assert "epochs 1 -> 2" in line and "the learning rate goes on at" in line
    settings = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    assert settings["changed"][0]["epoch"] == 1 and settings["changed"][0]["epochs"] == [1, 2]
    assert report.changes[0].settings.keys() == settings["changed"][0].keys() - {"epoch"}
    assert settings["resume"] is None and settings["epochs"] == 2


def test_updates_that_fall_lose_no_epoch(start, tmp_path):
    run = tmp_path / "run"
    start("--epochs", 2)
    start("--resume", run, "--epochs", 3, "-b", 24, "--checkpoint-hist", 1)  # 1 update an epoch and not 4
    assert [state.name for state in (run / "state").iterdir()] == ["update-000000003"]
    report = start("--resume", run, "--epochs", 4)
    assert epochs(run) == [0, 1, 2, 3] and report.images_seen == report.views_seen == 4 * 24


def test_an_epoch_that_was_interrupted_is_trained_whole_at_another_batch_size(start, steps, tmp_path, monkeypatch):
    Interference((), stop_in=2).install(monkeypatch)
    with pytest.raises(SystemExit):
        start()
    monkeypatch.undo()
    steps.clear()
    report = start("--resume", tmp_path / "run", "-b", 4, "--dccd-views", 2)
    assert len(steps) == 6 and epochs(tmp_path / "run") == [0]
    assert (report.images_seen, report.views_seen) == (3 * 6 + 24, 3 * 6 + 2 * 24)  # 3 updates before, then all


def test_another_accumulation_does_not_shift_its_windows(start, steps, tmp_path, monkeypatch):
    Interference((), stop_in=2).install(monkeypatch)
    with pytest.raises(SystemExit):
        start()
    monkeypatch.undo()
    steps.clear()
    start("--resume", tmp_path / "run", "--grad-accum-steps", 2)
    assert len(steps) == 2


def test_a_control_goes_on_as_long_as_the_student_or_is_not_compared(start, tmp_path, teacher, caplog):
    run = tmp_path / "run"
    start(
        "--img-size",
        48,
        "--kd-model-name",
        f"local-dir:{teacher}",
        "--kd-distill-type",
        "logit",
        "--dccd-control",
        "none",
        "feature",
    )
    report = start("--resume", run, "--epochs", 2)
    assert epochs(run) == epochs(run / "control") == epochs(run / "control-feature") == [0, 1]
    assert [control.method for control in report.controls] == ["none", "feature"]
    assert {control.agreement is None for control in report.controls} == {False}
    assert Report.read(run / "control").epochs == Report.read(run / "control-feature").epochs == 2
    written = (run / "report" / "report.json").read_text()
    assert '"method": "feature"' in written and Report.read(run).controls == report.controls
    with pytest.raises(UserError, match="--dccd-control none -> feature"):
        start("--resume", run, "--epochs", 3, "--dccd-control", "feature", "none")
    with pytest.raises(UserError, match="--kd-distill-type logit -> token"):
        start("--resume", run, "--epochs", 3, "--kd-distill-type", "token")
    assert epochs(run / "control") == [0, 1]
    shutil.rmtree(run / "control" / "state")  # it cannot go on
    report = start("--resume", run, "--epochs", 3)
    assert report.control is None and [other.method for other in report.further_controls] == ["feature"]
    assert "control" not in json.loads((run / "report" / "report.json").read_text())
    assert "not compared with its control: it was trained for 2 epochs, the student for 3" in caplog.text


def test_another_validation_split_begins_a_new_best_score(start, tmp_path, caplog):
    start("--epochs", 2)
    run = tmp_path / "run"
    state = run / "state" / "update-000000008"
    saved = json.loads((state / "progress.json").read_text())
    saved["best"] |= {"metric": 101.0}  # nothing beats it
    (state / "progress.json").write_text(json.dumps(saved))
    (state / "sha256.json").write_text("{}")
    assert start("--resume", run, "--epochs", 3, "--val-split", "train").best_epoch == 2
    assert "the best score so far, 101 in epoch" in caplog.text and "does not count any more" in caplog.text


@pytest.mark.parametrize("name", ["a b", "it's", 'say "so"', "größe"])
def test_the_command_that_an_interrupted_run_prints_continues_it(name, images, tmp_path, monkeypatch, caplog, teacher):
    """Interrupted in its control, of which the user knows nothing."""
    Interference((), stop_in=1).install(monkeypatch)
    flags = ["--data-dir", images, "--model", "test_resnet", "--img-size", 48, "-b", 12, "-j", 0, "--epochs", 1]
    flags += ["--device", "cpu", "--output", tmp_path / name, "--experiment", name, "--lr", 0.03, "--val-split", ""]
    flags += ["--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "logit", "--dccd-control", "none"]
    with pytest.raises(SystemExit):
        train(load_recipe([str(word) for word in flags]), Recorder())
    monkeypatch.undo()
    printed = next(r.getMessage() for r in caplog.records if "resume with" in r.getMessage())
    report = train(load_recipe(shlex.split(printed.split("resume with ")[1])), Recorder())
    assert report.method == "logit" and report.control is not None and report.complete
    assert (tmp_path / name / name / "report" / "report.json").is_file()
    assert [p.name for p in (tmp_path / name).iterdir()] == [name]
