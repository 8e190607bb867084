"""The teacher is evaluated before the training: what is refused, what is kept, and what is not evaluated twice."""

import random

import numpy as np
import pytest
import torch

from dccd_timm.cli import train_main
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.run import teacher as teacher_module
from dccd_timm.run.pieces import build_training, open_splits
from dccd_timm.run.teacher import EVALUATION, evaluate_teacher, near_chance, write_evaluation
from tests.run.colours import COLOURS, SIZE, save_knowing, write_folder

NAMES = list(COLOURS)
ROLLED = NAMES[1:] + NAMES[:1]


@pytest.fixture
def colours(tmp_path):
    """A data set of colours, and a teacher that knows them."""
    for split in ("train", "validation"):
        write_folder(tmp_path / "data" / split, *NAMES)
    save_knowing(tmp_path / "teacher", NAMES)
    return tmp_path


def flags(folder, *more, teacher="teacher"):
    return [*map(str, (
        "--data-dir", folder / "data", "--model", "test_resnet", "--img-size", SIZE, "-b", 6, "-j", 0, "--epochs", 1,
        "--warmup-epochs", 0, "--device", "cpu", "--kd-model-name", f"local-dir:{folder / teacher}",
        "--output", folder / "out", "--experiment", "run", *more,
    ))]  # fmt: skip


def build(folder, *more):
    recipe = load_recipe(flags(folder, *more))
    splits, accelerator = open_splits(recipe), start_accelerator(recipe)
    return recipe, splits, build_training(recipe, splits, accelerator, 0, None), folder / "out" / "run", accelerator


@pytest.fixture
def passes(monkeypatch):
    """The networks of each pass over the validation split that the check makes."""
    seen, evaluate = [], teacher_module.evaluate_together

    def record(networks, *arguments, **more):
        seen.append(sorted(networks))
        return evaluate(networks, *arguments, **more)

    monkeypatch.setattr(teacher_module, "evaluate_together", record)
    return seen


@pytest.mark.parametrize(
    ("num_classes", "limit"), [(1, 0), (2, 60), (4, 35), (10, 20), (100, 2), (999, 200 / 999), (1000, 5), (21841, 5)]
)
def test_near_chance_is_twice_chance_10_points_above_it_or_5_percent(num_classes, limit):
    assert near_chance(num_classes) == pytest.approx(limit)


def test_a_teacher_with_another_order_of_classes_is_refused_and_nothing_is_left(colours, fresh_accelerator, capsys):
    save_knowing(colours / "rolled", ROLLED, label_names=None)
    with pytest.raises(SystemExit) as stopped:
        train_main(flags(colours, teacher="rolled"))
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2 and line.startswith("error: teacher local-dir:")
    assert "has a top-1 of 0.00 % on 12 images of split validation, near chance for 4 classes (below 35 %)" in line
    assert all(
        cause in line for cause in ("normalisation", "order of its classes", "checkpoint", "--allow-weak-teacher")
    )
    assert not (colours / "out").exists()


def test_an_allowed_weak_teacher_is_a_warning(colours, fresh_accelerator, caplog):
    save_knowing(colours / "rolled", ROLLED, label_names=None)
    train_main(flags(colours, "--allow-weak-teacher", teacher="rolled"))
    assert "near chance for 4 classes" in caplog.text
    assert Report.read(colours / "out" / "run").teacher.top1 == 0


def test_a_teacher_below_the_pretrained_student_is_refused(colours, fresh_accelerator, capsys):
    save_knowing(colours / "half", [NAMES[0], NAMES[1], NAMES[3], NAMES[2]], label_names=None)
    pretrained = ["--initial-checkpoint", colours / "teacher" / "model.safetensors"]
    with pytest.raises(SystemExit):
        train_main(flags(colours, *pretrained, teacher="half"))
    assert "a top-1 of 50.00 %" in (line := capsys.readouterr().err)
    assert "below the pretrained student itself (100.00 %)" in line


def test_the_start_block_the_report_and_the_control_share_one_evaluation(colours, fresh_accelerator, capsys, passes):
    train_main(flags(colours, "--dccd-control", "none"))
    assert passes == [["teacher"]]
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  teacher  ")]
    assert len(shown) == 2 and all(line.endswith("top-1 100.00 % of 12 images") for line in shown)
    for folder in (colours / "out" / "run", colours / "out" / "run" / "control"):
        report = Report.read(folder)
        assert report.teacher.top1 == 100 and report.redundancy.teacher.channels > 0
        assert report.student.agreement is not None
        assert [row.teacher for row in report.classes.per_class] == [100] * 4
    train_main(flags(colours, "--dccd-control", "none", "--resume", colours / "out" / "run", "--epochs", 2))
    assert passes == [["teacher"]]


def test_other_images_weights_or_preprocessing_are_evaluated_anew(colours, fresh_accelerator, passes):
    folder = colours / "kept"
    folder.mkdir()

    def evaluate(*more):
        recipe, splits, training, _, accelerator = build(colours, *more)
        evaluate_teacher(recipe, splits, training, folder, accelerator, False)
        training.loader.close()
        write_evaluation(training, folder)
        assert training.teacher_evaluation.counts == {"images": 12, "skipped": 0}
        return len(passes)

    assert [evaluate(), evaluate()] == [1, 1]
    assert [evaluate("--crop-pct", 1), evaluate("--crop-pct", 1)] == [2, 2]
    image = colours / "data" / "validation" / "ant" / "0.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert [evaluate("--crop-pct", 1), evaluate("--crop-pct", 1)] == [3, 3]
    save_knowing(colours / "teacher", [NAMES[0], NAMES[1], NAMES[3], NAMES[2]], label_names=None)
    assert [evaluate("--crop-pct", 1), evaluate("--crop-pct", 1)] == [4, 4]


def test_the_generators_of_the_training_stay_as_they_are(colours, fresh_accelerator):
    recipe, splits, training, folder, accelerator = build(
        colours, "--pretrained-path", colours / "teacher" / "model.safetensors"
    )
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    evaluate_teacher(recipe, splits, training, folder, accelerator, False)
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    training.loader.close()


def test_without_a_validation_split_the_start_block_says_so(colours, fresh_accelerator, capsys):
    train_main(flags(colours, "--val-split", "", "--eval-metric", "top1"))
    assert "not evaluated: no validation split" in capsys.readouterr().out
    assert not (colours / "out" / "run" / EVALUATION).exists()


def test_a_damaged_file_is_evaluated_anew(colours, fresh_accelerator, passes):
    recipe, splits, training, folder, accelerator = build(colours)
    folder.mkdir(parents=True)
    (folder / EVALUATION).write_bytes(b"half")
    evaluate_teacher(recipe, splits, training, folder, accelerator, True)
    assert training.teacher_key and passes == [["teacher"]]
    training.loader.close()
