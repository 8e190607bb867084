"""One student's training: what is wrong is found before anything is written. Whole trainings are in test_train.py."""

import pytest

from dccd_timm.engine import loop
from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.run.train import train
from tests.conftest import write_folders


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-b", "100"], "one update takes 100 images .* the training split has 12: lower --batch-size"),
        (["--num-classes", "2"], "the data set has 3 classes, the student 2: raise --num-classes"),
        (
            ["--kd-model-name", "test_resnet"],
            r"teacher test_resnet has 1000 classes, the student 3: fine-tune it on this data set first \(--model test_resnet"
            r" --pretrained --kd-distill-type none --experiment teacher\) and distil from that \(--kd-model-name"
            r" local-dir:output/train/teacher/best\)",
        ),
    ],
)
def test_a_mistake_leaves_no_folder(flags, message, tmp_path, fresh_accelerator, monkeypatch):
    monkeypatch.setattr("timm.models._builder.load_pretrained", lambda *_, **__: None)  # no weights without a network
    monkeypatch.setattr("dccd_timm.models.load.check_reachable", lambda _: None)
    with pytest.raises(UserError, match=message):
        run(tmp_path, *flags)
    assert not (tmp_path / "out").exists()


def run(tmp_path, *flags):
    write_folders(tmp_path / "images", per_class=(4, 2))
    words = ["--data-dir", tmp_path / "images", "--model", "test_resnet", "--img-size", "32", "-b", "4", "-j", "0"]
    words += ["--device", "cpu", "--epochs", "1", "--warmup-epochs", "0", "--output", tmp_path / "out" / "mine", *flags]
    recipe = load_recipe([str(word) for word in words])
    train(recipe, HubPublisher(recipe))


class Failure:
    """Lets an update of the training end with an error."""

    def __init__(self, monkeypatch, error, update):
        self.error, self.update, self.step = error, update, loop.training_step
        monkeypatch.setattr(loop, "training_step", self)

    def __call__(self, *arguments):
        if self.update == 0:
            raise self.error
        self.update -= 1
        return self.step(*arguments)


@pytest.mark.parametrize("error", [RuntimeError("shapes"), KeyboardInterrupt()], ids=["a bug", "Ctrl-C"])
@pytest.mark.parametrize("flags", [[], ["--dccd-control", "none"]], ids=["", "control"])
def test_what_ends_before_its_first_update_leaves_no_folder(error, flags, tmp_path, fresh_accelerator, monkeypatch):
    (tmp_path / "out").mkdir()
    Failure(monkeypatch, error, update=0)
    with pytest.raises(type(error)):
        run(tmp_path, *flags)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_ends_after_its_first_update_keeps_its_folder(tmp_path, fresh_accelerator, monkeypatch):
    Failure(monkeypatch, RuntimeError("shapes"), update=1)
    with pytest.raises(RuntimeError):
        run(tmp_path, "--experiment", "first")
    assert (tmp_path / "out" / "mine" / "first" / "args.yaml").is_file()


def test_a_tracker_that_does_not_start_leaves_no_folder_and_other_runs_stay(tmp_path, fresh_accelerator, monkeypatch):
    (tmp_path / "out" / "mine" / "other").mkdir(parents=True)

    def refuse(*_):
        raise UserError("--log-with wandb: no key")

    monkeypatch.setattr("dccd_timm.run.student.start_trackers", refuse)
    with pytest.raises(UserError, match="no key"):
        run(tmp_path, "--experiment", "first")
    assert [path.name for path in (tmp_path / "out" / "mine").iterdir()] == ["other"]
