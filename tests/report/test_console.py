"""The start block and the closing table, from a report that need not come from a training."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from dccd_timm.batch import Progress
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.report.console import (
    SplitFacts,
    StartFacts,
    closing_table,
    epoch_line,
    next_commands,
    print_closing,
    start_block,
)
from dccd_timm.report.schema import Hardware, NetworkReport, Origin, Report, SplitReport, SplitReports

STUDENT = NetworkReport(name="resnet18", method="dccd", parameters_m=11.69, top1=70.126, top5=90.0, agreement=80.5)
TEACHER = NetworkReport(name="resnet34", parameters_m=21.8, top1=75.0, top5=92.0)


TRAIN = SplitFacts(place="d/train", images=1000, classes=10)
VAL = SplitFacts(place="d/val", images=200, classes=10)


def facts(**changed):
    values = dict(
        student=STUDENT, teacher=TEACHER, teacher_sees="", gmacs={"student": 1.8142, "teacher": None},
        terms={"task_loss": 1.0, "kd_loss": 0.5, "contrast_loss": 5.0, "mirror_loss": 0.25}, train=TRAIN, val=VAL,
        input_size=(3, 224, 224), updates_per_epoch=12, epochs=3, lr=0.05, hardware=Hardware(world=2, device="cuda"),
        folder=Path("out/run"),
    )  # fmt: skip
    return StartFacts(**values | changed)


def lines(block):
    return dict(line.strip().split(maxsplit=1) for line in block.splitlines())


def test_the_start_block_shows_networks_method_and_the_weight_of_every_term():
    recipe = load_recipe(["--data-dir", "d", "--kd-model-name", "resnet34", "--kd-distill-type", "dccd", "-b", "32"])
    found = lines(start_block(recipe, facts()))
    assert found["student"] == "resnet18, 11.690 M parameters, 1.81 GMACs, sees 3x224x224, weights: random"
    assert found["teacher"] == "resnet34, 21.800 M parameters, not evaluated: no validation split"
    assert found["method"] == "dccd, task 1, kd 0.5, contrast 5, mirror 0.25"
    assert found["data"] == "d/train: 1000 images, 10 classes"
    assert found["validation"] == "d/val: 200 images, 10 classes"
    assert list(found) == ["teacher", "student", "data", "validation", "method", "device", "update", "writes"]
    assert found["update"].startswith("64 images x 2 views, 12 updates per epoch, 3 epochs, sgd at 0.05")
    assert found["device"] == "2 x cuda, float32"
    assert found["writes"] == "to  out/run"
    assert "fed" not in found


def test_the_start_block_says_what_the_teacher_is_fed():
    recipe = load_recipe(["--data-dir", "d", "--kd-model-name", "resnet34"])
    block = start_block(recipe, facts(teacher_sees="3x224x224, resized from 64x64"))
    assert lines(block)["fed"] == "the teacher sees 3x224x224, resized from 64x64"


def test_the_start_block_names_the_columns_of_a_table():
    recipe = load_recipe(["--data-dir", "d", "--kd-distill-type", "none"])
    found = lines(start_block(recipe, facts(train=replace(TRAIN, columns=("photo", "json/label")), val=None)))
    assert found["data"] == "d/train: 1000 images, 10 classes, columns photo and json/label"
    assert found["validation"] == "none: best/ is the epoch with the lowest training loss"


@pytest.mark.parametrize(("skipped", "more"), [(0, ""), (2, ", 2 unreadable")])
def test_the_start_block_says_how_good_the_teacher_is(skipped, more):
    recipe = load_recipe(["--data-dir", "d", "--kd-model-name", "resnet34"])
    found = lines(start_block(recipe, facts(evaluated={"images": 98, "skipped": skipped})))
    assert found["teacher"] == f"resnet34, 21.800 M parameters, top-1 75.00 % of 98 images{more}"


def test_a_training_without_teacher_has_no_line_for_it():
    recipe = load_recipe(["--data-dir", "d", "--kd-distill-type", "none"])
    found = lines(start_block(recipe, facts(teacher=None, terms={"task_loss": 1.0}, gmacs={"student": 0.0123})))
    assert "teacher" not in found and found["method"] == "none, task 1"
    assert found["student"].endswith("12.3 MMACs, sees 3x224x224, weights: random")


def test_the_start_block_says_where_the_students_weights_come_from():
    student = NetworkReport(name="resnet18", parameters_m=11.69, start=Origin(name="timm/resnet18.a1_in1k"))
    recipe = load_recipe(["--data-dir", "d", "--pretrained"])
    assert lines(start_block(recipe, facts(student=student)))["student"].endswith("weights: timm/resnet18.a1_in1k")


def test_the_closing_table_has_teacher_student_and_control_side_by_side():
    control = NetworkReport(name="resnet18", method="none", parameters_m=11.69, top1=65.0, top5=88.0)
    table = closing_table(Report(student=STUDENT, teacher=TEACHER, control=control)).splitlines()
    assert [line.split()[0] for line in table] == ["parameters", "teacher", "student", "control"]
    assert table[0].split("  ")[-1] == "agrees with teacher"
    assert table[2].split() == [
        "student",
        "(resnet18,",
        "dccd)",
        "11.690",
        "M",
        "70.13",
        "%",
        "90.00",
        "%",
        "80.50",
        "%",
    ]
    assert table[3].endswith("88.00 %")


def test_without_a_teacher_no_column_compares_with_it():
    table = closing_table(Report(student=NetworkReport(name="s", method="none", top1=1.0, top5=2.0)))
    assert "agrees" not in table and "student (s, none)" in table


def test_the_last_lines_say_where_student_and_report_are(capsys):
    print_closing(Path("out/run"), Report(student=STUDENT))
    shown = capsys.readouterr().out
    assert "timm.create_model('local-dir:out/run/best', pretrained=True)" in shown and "70.13 %" in shown
    print_closing(Path("it's"), Report(student=NetworkReport(name="s")))
    shown = capsys.readouterr().out
    assert eval(re.search(r"create_model\((.*), pretrained", shown)[1]) == "local-dir:it's/best"
    print_closing(Path("out/run"), Report(student=NetworkReport(name="s")))
    assert "top-1" not in capsys.readouterr().out  # nothing was validated


@pytest.mark.parametrize(("skipped", "more"), [(0, ""), (40, ", 40 more could not be read")])
def test_the_last_lines_say_on_how_many_images_the_student_was_evaluated(skipped, more, capsys):
    splits = SplitReports(validation=SplitReport(name="val", images=20, skipped=skipped))
    print_closing(Path("out/run"), Report(student=STUDENT, splits=splits))
    assert f"  evaluated on 20 images of the split val{more}\n" in capsys.readouterr().out


def test_an_epoch_is_one_line_with_time_losses_top1_best_and_what_is_left():
    progress = Progress(2, 30, {"loss": 3.0, "kd_loss": 2.0}, lr=0.1, views_per_second=123.45)
    metrics = {"loss": 1.5, "top1": 60.0, "top5": 90.0, "images": 24, "skipped": 0}
    line = epoch_line(progress, 10, metrics, (1, 61.5), 12.3, 700.0)
    assert line == ("epoch 3/10  12 s  top-1 60.00 %  best 61.50 % in epoch 2  12 min left  loss 3  kd 2  123 views/s")
    broken = metrics | {"images": 20, "skipped": 4}
    assert epoch_line(progress, 3, broken, (2, 60.0), 1, 0) == (
        "epoch 3/3  1 s  top-1 60.00 % of 20 images, 4 unreadable  loss 3  kd 2  123 views/s"
    )
    assert epoch_line(progress, 3, {}, None, 1, 0) == "epoch 3/3  1 s  loss 3  kd 2  123 views/s"
    losses = {"loss": 18.24, "task_loss": 1.112, "kd_loss": 0.983, "contrast_loss": 3.229, "difference_loss": 0.1567}
    line = epoch_line(Progress(2, 30, losses, 0.1, 1234.5), 100, metrics, (1, 61.5), 3700, 7000)
    assert line.index("left") < 80  # what matters is on the first line of a terminal


def test_the_last_lines_have_the_gain_and_the_next_commands(tmp_path, capsys):
    run = tmp_path / "my run"
    (run / "best").mkdir(parents=True)
    (run / "best" / "config.json").write_text("{}")
    control = NetworkReport(name="resnet18", method="none", top1=69.0, top5=88.0)
    settings = {"dataset": "hfids/my images", "val_split": "test", "val_num_samples": 50, "data_dir": None}
    print_closing(run, Report(student=STUDENT, control=control), settings)
    shown = capsys.readouterr().out.splitlines()
    assert "  gain +1.13 points of top-1 over the control" in shown
    further = [NetworkReport(name="resnet18", method="feature", top1=60.0)]
    print_closing(run, Report(student=STUDENT, control=control, further_controls=further), settings)
    both = capsys.readouterr().out
    assert "gain +1.13 points of top-1 over the control (none)\n" in both
    assert "control (resnet18, none)" in both and "control (resnet18, feature)" in both
    assert shown[-1] == f"  next: dccd-timm push '{run}' OWNER/NAME"
    validate = shlex.split(shown[-2].removeprefix("  next: "))
    options = load_validation(validate[2:])
    assert validate[:2] == ["dccd-timm", "validate"] and options.split == "test" and options.num_samples == 50
    assert options.dataset == "hfids/my images"
    assert len(next_commands(Path("run"), {"val_split": ""})) == 1
    own = next_commands(Path("run"), {"val_split": "t", "device_modules": ["my nets.py", "blocks"]})[0]
    assert load_validation(["--model", "x", *shlex.split(own)[3:]]).device_modules == ("my nets.py", "blocks")
