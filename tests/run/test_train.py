"""A whole training in this process: what it leaves, and what its report counts after a resume."""

import json
import math
import os
import signal

import pytest
import safetensors.torch
import torch

from dccd_timm.engine import loop
from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.report.pictures import PICTURES
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary
from dccd_timm.run.redraw import redraw
from dccd_timm.run.train import train
from tests.conftest import picture, write_folders
from tests.run.colours import COLOURS, write_folder

# Whole trainings: not part of the unit ring.
pytestmark = pytest.mark.slow


class Recorder:
    """A publisher that notes what it is asked for."""

    def __init__(self):
        self.calls = []

    def check(self):
        self.calls.append(("check",))

    def write_card(self, folder):
        self.calls.append(("card", folder.name))

    def push_interim(self, folder, report):
        self.calls.append(("interim", report.best_epoch, report.complete, report.student.top1 is not None))

    def push(self, folder):
        self.calls.append(("push", folder.name))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 images to train with, two of them unreadable."""
    folder = write_folders(tmp_path_factory.mktemp("images"), per_class=(8, 3))
    for number in (1, 5):
        next((folder / "train").glob(f"*/{number}.png")).write_bytes(b"\x89PNG broken")
    return folder


def flags_for(images, output):
    return [
        "--data-dir", images, "--model", "test_resnet", "--img-size", 32, "-b", 6, "-j", 0, "--epochs", 2, "--lr", 0.05,
        "--device", "cpu", "--warmup-epochs", 0, "--output", output, "--nonfinite", "skip", "--recovery-interval", 1,
    ]  # fmt: skip


@pytest.fixture
def flags(images, tmp_path):
    return flags_for(images, tmp_path)


def run(flags, *more, publisher=None):
    return train(load_recipe([str(word) for word in (*flags, *more)]), publisher or Recorder())


NAMES = ["$5 note #1", "$5 note #2", os.fsdecode(b"caf\xe9"), "{a\n|b}", "z" * 200, "猫🍕"]


def test_class_names_of_any_characters_cost_no_run_and_its_report_is_made_again(tmp_path, fresh_accelerator, caplog):
    for number, name in enumerate(NAMES):
        for split in ("train", "validation"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(3):
                picture(number % 3, number + k).save(tmp_path / "data" / split / name / f"{k}.png")
    (tmp_path / "data" / "train" / NAMES[2] / os.fsdecode(b"br\xfbl\xe9.png")).write_bytes(b"broken")
    flags = [*flags_for(tmp_path / "data", tmp_path), "--epochs", 1, "--experiment", "$5 {café}"]
    publisher, folder = HubPublisher(load_recipe([])), tmp_path / "$5 {café}"
    expected = sorted(NAMES)
    alone = [name for name in PICTURES if name not in ("comparison", "sensitivity")]  # it has no teacher
    written = [folder / "README.md", *(folder / "report" / f"{name}.png" for name in alone)]
    for resume in ([], ["--resume", folder]):
        report = run(flags, *resume, publisher=publisher)
        assert sorted(row.name for row in report.classes.per_class) == expected and report.skipped_images == 1
        assert sorted(json.loads((folder / "best" / "config.json").read_text())["label_names"]) == expected
        for path in (*written, folder / "report" / "report.json"):
            path.unlink()  # as a run whose report failed
    report.write(folder)
    again = redraw(folder, None, HubPublisher)
    assert again == report and report.sensitivity is None and all(path.is_file() for path in written)
    assert "bug" not in caplog.text and not (folder / "errors.log").exists()


class Interference:
    """Makes the images of some updates NaN, and sends SIGTERM in another one; it counts over resumes."""

    def __init__(self, nan_in, stop_in=None):
        self.nan_in, self.stop_in, self.updates = nan_in, stop_in, 0

    def install(self, monkeypatch):
        step = loop.training_step

        def training_step(task, batch, *more):
            if self.updates in self.nan_in:
                batch.views[0, 0, 0, 0, 0] = math.nan
            if self.updates == self.stop_in:
                os.kill(os.getpid(), signal.SIGTERM)
            self.updates += 1
            return step(task, batch, *more)

        monkeypatch.setattr(loop, "training_step", training_step)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Report and folder of a training that nothing interrupts."""
    output = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        Interference({1, 5}).install(monkeypatch)
        return run(flags_for(images, output), "--experiment", "run"), output / "run"


@pytest.mark.parametrize("stop_in", [0, 2, 3, 5], ids=lambda update: f"after-update-{update + 1}-of-8")
def test_a_resumed_report_counts_the_whole_training(stop_in, whole, flags, tmp_path, monkeypatch, fresh_accelerator):
    expected, uninterrupted = whole
    assert (expected.skipped_updates, expected.skipped_images) == (2, 2)
    Interference({1, 5}, stop_in).install(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        run(flags, "--experiment", "parts")
    assert ended.value.code == 75
    state = max((tmp_path / "parts" / "state").iterdir())
    saved = json.loads((state / "progress.json").read_text())
    assert saved["updates"] == stop_in + 1 and saved["skipped_updates"] == sum(n <= stop_in for n in (1, 5))
    # as if the interrupted part had taken an hour
    saved["seconds"] = 3600.0
    (state / "progress.json").write_text(json.dumps(saved))
    (state / "sha256.json").write_text("{}")
    parts = run(flags, "--resume", tmp_path / "parts")
    assert (parts.skipped_updates, parts.skipped_images) == (expected.skipped_updates, expected.skipped_images)
    assert sorted(parts.skipped_first) == sorted(expected.skipped_first)
    assert 3600 < parts.seconds < 3600 + 120
    assert Report.read(tmp_path / "parts") == parts
    runs = (uninterrupted, tmp_path / "parts")
    students = [safetensors.torch.load_file(folder / "last" / "model.safetensors") for folder in runs]
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("failing", [1, 2], ids=lambda epoch: f"in-epoch-{epoch}")
def test_an_export_that_fails_costs_no_epoch(failing, whole, flags, tmp_path, monkeypatch, fresh_accelerator):
    """The state is saved before the run ends, and the resume ends that epoch anew: same student, same rows."""
    from dccd_timm.run import export as module

    Interference({1, 5}).install(monkeypatch)
    prove, epochs = module._prove, []

    def refuse(model, folder):
        epochs.append(folder.name)
        if len([name for name in epochs if name == ".last.new"]) == failing:
            raise UserError("timm builds another student from config.json")
        prove(model, folder)

    monkeypatch.setattr(module, "_prove", refuse)
    with pytest.raises(UserError, match="timm builds another student"):
        run(flags, "--experiment", "parts")
    newest = max((tmp_path / "parts" / "state").iterdir())
    assert json.loads((newest / "progress.json").read_text())["updates"] == 4 * failing
    monkeypatch.setattr(module, "_prove", prove)
    report = run(flags, "--resume", tmp_path / "parts")
    expected, uninterrupted = whole
    assert report.best_epoch == expected.best_epoch and report.student == expected.student
    for name in ("last", "best"):
        students = [
            safetensors.torch.load_file(f / name / "model.safetensors") for f in (uninterrupted, newest.parents[1])
        ]
        assert all(torch.equal(students[0][key], students[1][key]) for key in students[0])
    rows = [
        [{k: v for k, v in row.items() if "views" not in k} for row in read_summary(folder / "summary.csv")]
        for folder in (uninterrupted, newest.parents[1])
    ]
    assert rows[0] == rows[1]


@pytest.mark.usefixtures("without_pictures")
def test_a_longer_training_keeps_the_best_student_of_its_end(flags, tmp_path, monkeypatch, fresh_accelerator):
    """Plain weights won at the end; the average of a further epoch is worse, and must not replace them."""
    from dccd_timm.run import best, epoch

    scores = {"average": 20.0, "plain": 60.0}
    monkeypatch.setattr(epoch, "score", lambda *a, **k: {"loss": 1.0, "top1": scores["average"], "top5": 90.0})
    monkeypatch.setattr(best, "score", lambda *a, **k: {"loss": 1.0, "top1": scores["plain"], "top5": 90.0})
    ema = ["--model-ema", "--model-ema-decay", 0.999]
    report = run(flags, *ema, "--experiment", "run")
    assert (report.weights, report.best_epoch) == ("raw", 1)
    file = tmp_path / "run" / "best" / "model.safetensors"
    plain = file.read_bytes()
    scores |= {"average": 21.0, "plain": 59.0}
    report = run(flags, *ema, "--epochs", 3, "--resume", tmp_path / "run")
    assert file.read_bytes() == plain and (report.weights, report.best_epoch) == ("raw", 1)
    scores |= {"average": 61.0, "plain": 59.0}
    report = run(flags, *ema, "--epochs", 4, "--resume", tmp_path / "run")
    assert file.read_bytes() != plain and (report.weights, report.best_epoch) == ("ema", 3)


def test_the_publisher_is_asked_in_order(flags, tmp_path, fresh_accelerator):
    """Before anything is written, after epochs, for the card, and last of all for the push."""
    publisher = Recorder()
    more = ["--experiment", "run", "--epochs", 3, "--push-to-hub", "alice/student", "--hub-interval", 1]
    report = run(flags, *more, publisher=publisher)
    interim = [call for call in publisher.calls if call[0] == "interim"]
    assert publisher.calls == [("check",), *interim, ("card", "run"), ("push", "run")]
    assert len(interim) == 2 and all(call[2:] == (False, True) for call in interim)  # the third goes with the report
    assert report.complete and report.epochs == 3


def test_a_control_is_trained_once_and_never_pushed(flags, tmp_path, fresh_accelerator, teacher):
    publisher = Recorder()
    more = ["--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "logit", "--dccd-control", "none"]
    more += ["--push-to-hub", "alice/student", "--hub-interval", 1, "--experiment", "run", "--img-size", 48]
    report = run(flags, *more, publisher=publisher)
    assert report.control and report.control.method == "none" and Report.read(tmp_path / "run" / "control")
    assert [call[:2] for call in publisher.calls if call[0] != "interim"] == [
        ("check",), ("card", "control"), ("card", "run"), ("push", "run"),
    ]  # fmt: skip
    first = (tmp_path / "run" / "control" / "summary.csv").read_text()
    assert run(flags, *more, "--epochs", 3, "--resume", tmp_path / "run", publisher=publisher).control
    extended = (tmp_path / "run" / "control" / "summary.csv").read_text()
    assert extended.startswith(first) and len(extended.splitlines()) == 4
    assert [call[:2] for call in publisher.calls if call[0] == "push"] == [("push", "run")] * 2


def test_a_finished_run_is_not_trained_again(flags, tmp_path, fresh_accelerator):
    run(flags, "--experiment", "run", "--epochs", 1)
    with pytest.raises(UserError, match="is trained already, for 1 epochs: raise --epochs"):
        run(flags, "--epochs", 1, "--resume", tmp_path / "run")


def test_a_resume_keeps_the_numbers_of_the_classes_and_refuses_a_renamed_one(
    tmp_path, fresh_accelerator, monkeypatch, caplog
):
    """The first epoch numbers class1, class10, class2 alphabetically, as versions before this one did in a stream; the
    validation split has no class10."""
    data, names = tmp_path / "data", ["class1", "class10", "class2"]
    colours = dict(zip(names, COLOURS.values(), strict=False))
    write_folder(data / "train", *names, colours=colours, images=4)
    write_folder(data / "val", "class1", "class2", colours=colours, images=2)
    flags = [*flags_for(data, tmp_path / "out"), "--no-aug", "--epochs", 1, "--experiment", "a"]
    with monkeypatch.context() as patched:
        patched.setattr("dccd_timm.data.sources.folders.class_order", sorted)
        run(flags)
    for state in (tmp_path / "out/a/state").iterdir():
        assert json.loads((state / "progress.json").read_text())["class_names"] == names
    report = run(flags, "--epochs", 2, "--resume", tmp_path / "out/a")
    assert json.loads((tmp_path / "out/a/best/config.json").read_text())["label_names"] == names
    assert sorted((c.name, c.images) for c in report.classes.per_class if c.images) == [("class1", 2), ("class2", 2)]
    assert "the training split has its classes in another order than the run in" in caplog.text
    for split in ("train", "val"):
        (data / split / "class2").rename(data / split / "second")
    with pytest.raises(UserError, match="that the run in .* does not have: second; and none of its classes class2"):
        run(flags, "--epochs", 3, "--resume", tmp_path / "out/a")
