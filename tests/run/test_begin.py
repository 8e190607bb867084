"""What a run writes and prints before its first epoch."""

import pytest

from dccd_timm.engine.loop import Start
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
from dccd_timm.run.begin import begin_run, start_facts
from dccd_timm.run.pieces import build_training, open_splits
from dccd_timm.run.resume import ResumePoint


@pytest.fixture
def training(folders, fresh_accelerator):
    """Arguments of a training on 48 images of 3 classes."""
    flags = ["--data-dir", folders, "--model", "test_resnet", "--img-size", 32, "-b", 8, "-j", 0, "--device", "cpu"]
    flags += [
        "--epochs",
        3,
        "--warmup-epochs",
        0,
        "--lr",
        0.1,
        "--val-split",
        "",
        "--dccd-views",
        2,
        "--grad-accum-steps",
        2,
    ]
    recipe = load_recipe([*map(str, flags)])
    splits, accelerator = open_splits(recipe), start_accelerator(recipe)
    built = build_training(recipe, splits, accelerator, 0, None)
    yield recipe, splits, built, accelerator
    built.loader.close()


def test_the_facts_are_those_of_the_training(training, tmp_path):
    facts = start_facts(*training, tmp_path)
    assert (facts.train.images, facts.train.classes, facts.val, facts.input_size) == (48, 3, None, (3, 32, 32))
    assert facts.train.place.endswith("/train")
    assert (facts.updates_per_epoch, facts.epochs, facts.lr) == (3, 3, 0.1)
    assert facts.teacher is None and facts.hardware.world == 1


@pytest.mark.parametrize("resumed", [False, True])
def test_a_new_run_draws_its_views_and_every_run_writes_its_settings(resumed, training, tmp_path, capsys):
    recipe, splits, built, accelerator = training
    (tmp_path / ".args.yaml.new").write_text("half")
    point = ResumePoint(Start(), state=tmp_path if resumed else None)
    begin_run(recipe, splits, built, tmp_path, accelerator, point)
    assert (tmp_path / "report" / "views.png").exists() is not resumed
    assert (tmp_path / "args.yaml").is_file() and not (tmp_path / ".args.yaml.new").exists()
    printed = capsys.readouterr().out
    assert "test_resnet" in printed and str(tmp_path) in printed and "16 images x 2 views" in printed
