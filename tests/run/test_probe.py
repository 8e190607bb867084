"""A linear head for a teacher without one is trained once, gives it an accuracy, and is kept."""

import random

import pytest
import torch

from dccd_timm.cli import train_main
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.run import probe as probe_module
from dccd_timm.run.pieces import build_training, open_splits
from dccd_timm.run.probe import PROBE, read_probe, write_probe
from tests.run.colours import COLOURS, write_folder
from tests.run.test_load_teacher import flags, save_teacher

NAMES = list(COLOURS)


@pytest.fixture
def data(tmp_path):
    for split in ("train", "validation"):
        write_folder(tmp_path / "data" / split, *NAMES)
    return tmp_path


@pytest.fixture
def passes(monkeypatch):
    """The number of classes of each head that is trained."""
    seen, train = [], probe_module.train_probe

    def record(features, target, num_classes, *more):
        seen.append(num_classes)
        return train(features, target, num_classes, *more)

    monkeypatch.setattr(probe_module, "train_probe", record)
    return seen


def test_a_teacher_of_other_classes_gets_a_head_for_a_run_its_control_and_its_resume(
    data, fresh_accelerator, capsys, passes, without_pictures
):
    run, teacher = data / "out" / "run", save_teacher(data / "teacher", 7)
    train_main(flags(data, teacher, "--kd-teacher-probe", 30, "--dccd-control", "logit"))
    shown = capsys.readouterr().out
    assert shown.count("a linear head on its features, top-1 100.00 % of 12 images") == 2
    assert "method     dccd, task 1, kd 1, contrast 5, difference 0.02" in shown and passes == [4]
    report = Report.read(run)
    assert (report.teacher.head, report.teacher.top1) == ("probe", 100) and report.student.agreement is not None
    assert "with a linear head that was trained on its features" in (run / "README.md").read_text()
    head = read_probe(run)
    assert head.weight.shape == (4, 96) and (run / "control" / PROBE).exists()
    train_main(
        flags(data, teacher, "--kd-teacher-probe", 30, "--dccd-control", "logit", "--resume", "auto", "--epochs", 2)
    )
    assert passes == [4] and Report.read(run).teacher.top1 == 100


def test_it_is_trained_again_for_another_teacher_and_the_random_numbers_stay(data, fresh_accelerator, passes):
    def build(teacher, folder):
        recipe = load_recipe(flags(data, teacher, "--kd-teacher-probe", 5))
        training = build_training(recipe, open_splits(recipe), start_accelerator(recipe), 0, None, None, folder)
        training.loader.close()
        return training

    plain = load_recipe(flags(data, save_teacher(data / "own", 4)))
    build_training(plain, open_splits(plain), start_accelerator(plain), 0, None).loader.close()
    state = torch.get_rng_state(), random.getstate()
    first = build(save_teacher(data / "t", 0), data)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    write_probe(first.teacher_probe, data)
    again = build(f"local-dir:{data / 't'}", data)
    assert passes == [4] and torch.equal(again.teacher_probe.weight, first.teacher_probe.weight)
    torch.testing.assert_close(again.teacher.model.probe.weight, first.teacher_probe.weight)
    build(f"local-dir:{data / 'own'}", data)
    assert passes == [4, 4]
    (data / PROBE).write_bytes(b"half")
    assert read_probe(data) is None


def test_too_many_images_that_cannot_be_read_stop_it(data, fresh_accelerator, capsys):
    (data / "data" / "train" / "ant" / "0.png").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stopped:
        train_main(flags(data, save_teacher(data / "t", 0), "--kd-teacher-probe", 5, "--max-data-errors", 0))
    assert stopped.value.code == 2 and "more than --max-data-errors 0" in capsys.readouterr().err
    assert not (data / "out").exists()
