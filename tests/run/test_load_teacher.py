"""A teacher without a head, or with other classes: what is refused, and a run that has its features alone."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.cli import train_main
from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.models.timm_model import as_timm
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.run.load_teacher import load_run_teacher
from dccd_timm.run.redraw import redraw
from dccd_timm.run.teacher import EVALUATION
from tests.run.colours import COLOURS, SIZE, write_folder

NAMES = list(COLOURS)
REFUSED = [
    (0, "--kd-distill-type logit", "has no head, and logit reads its logits: choose a method that reads its features"),
    (0, "--kd-distill-type ofa", "(dccd, feature, fitnet, at, sp, rkd, wkd)"),
    (0, "--kd-distill-type dccd --distill-loss-weight 1", "--distill-loss-weight 1: teacher"),
    (0, "--kd-distill-type dccd --dccd-difference-weight 0.1", "--dccd-difference-weight 0.1: teacher"),
    (0, "--kd-distill-type dccd --dccd-contrast-weight 0", "nothing is left to distil"),
    (0, "--kd-distill-type dccd --kd-cache x", "--kd-cache keeps logits, and teacher"),
    (7, "--kd-distill-type logit", "has 7 classes, the student 4: fine-tune it on this data set first"),
    (7, "--kd-distill-type dccd", "or use its features alone (--kd-distill-type dccd --distill-loss-weight 0)"),
    (7, "--kd-distill-type dccd --dccd-contrast-weight 0 --distill-loss-weight 0", "nothing is left to distil"),
]
TAKEN = [
    (0, "--kd-distill-type dccd"), (0, "--kd-distill-type at"), (0, "--kd-distill-type none"),
    (7, "--kd-distill-type dccd --distill-loss-weight 0"), (7, "--kd-distill-type dccd --kd-teacher-head drop"),
    (4, "--kd-distill-type dccd --kd-teacher-head drop"), (7, "--kd-distill-type fitnet"),
]  # fmt: skip


def save_teacher(folder, num_classes):
    torch.manual_seed(1)
    model = timm.create_model("test_resnet", num_classes=num_classes).eval()
    save_for_hf(model, folder, data_config={"input_size": (3, SIZE, SIZE)}, safe_serialization=True)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    return {number: save_teacher(folder / str(number), number) for number in (0, 4, 7)}


@pytest.mark.parametrize(("classes", "flags", "line"), REFUSED)
def test_a_recipe_that_reads_logits_which_are_not_there_is_refused(teachers, classes, flags, line):
    recipe = load_recipe(["--kd-model-name", teachers[classes], *flags.split()])
    with pytest.raises(UserError) as caught:
        load_run_teacher(recipe, 4, NAMES)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("classes", "flags"), TAKEN)
def test_features_alone_are_taken_from_any_teacher(teachers, classes, flags):
    teacher = load_run_teacher(load_recipe(["--kd-model-name", teachers[classes], *flags.split()]), 4, NAMES)
    assert as_timm(teacher).num_classes == 0 and not teacher.training
    assert teacher(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, as_timm(teacher).num_features)


def test_a_control_is_refused_for_what_its_main_run_reads(teachers):
    main = load_recipe(["--kd-model-name", teachers[7], "--kd-distill-type", "dccd", "--dccd-control", "none"])
    control = load_recipe(["--kd-model-name", teachers[7], "--kd-distill-type", "none"])
    assert load_run_teacher(control, 4, NAMES) is not None
    with pytest.raises(UserError, match="has 7 classes"):
        load_run_teacher(control, 4, NAMES, main)


def test_weights_without_a_head_fit_an_architecture_without_one(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("eva02_tiny_patch14_224")
    assert model.num_classes == 0
    torch.save(model.state_dict(), tmp_path / "w.pth")
    flags = ["--kd-model-name", "eva02_tiny_patch14_224", "--kd-teacher-checkpoint", str(tmp_path / "w.pth")]
    teacher = load_run_teacher(load_recipe([*flags, "--kd-distill-type", "dccd"]), 4, NAMES)
    assert as_timm(teacher).num_classes == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), teacher.parameters(), strict=True))


def flags(folder, teacher, *more):
    return [*map(str, (
        "--data-dir", folder / "data", "--model", "test_resnet", "--img-size", SIZE, "-b", 6, "-j", 0, "--epochs", 1,
        "--warmup-epochs", 0, "--device", "cpu", "--kd-model-name", teacher, "--kd-distill-type", "dccd",
        "--output", folder / "out", "--experiment", "run", *more,
    ))]  # fmt: skip


def test_a_run_with_a_headless_teacher_from_its_start_block_to_a_resume(
    teachers, tmp_path, fresh_accelerator, capsys, monkeypatch
):
    for split in ("train", "validation"):
        write_folder(tmp_path / "data" / split, *NAMES)
    run = tmp_path / "out" / "run"
    train_main(flags(tmp_path, teachers[0], "--dccd-control", "none"))
    shown = capsys.readouterr().out
    assert shown.count("no head: its features are used, and it has no accuracy") == 2
    assert "method     dccd, task 1, contrast 5; kd and difference are off: the teacher has no head" in shown
    assert "agrees with teacher" not in shown and not (run / EVALUATION).exists()
    report = Report.read(run)
    assert report.terms == {"task_loss": 1, "contrast_loss": 5}
    assert (report.teacher.head, report.teacher.top1, report.student.agreement) == ("none", None, None)
    assert report.student.top1 is not None and report.control.top1 is not None
    assert report.redundancy.teacher.channels > 0 and report.redundancy.student_teacher.after is not None
    assert report.classes.agreement is None and report.classes.outcomes == {}
    header = (run / "summary.csv").read_text().splitlines()[0]
    assert "train_contrast_loss" in header and "kd_loss" not in header and "difference" not in header
    card = (run / "README.md").read_text()
    assert "distilled by DCCD from test_resnet (0.373 M parameters, by its features alone)" in card
    assert "agrees with teacher" not in card and "| **student**" in card
    assert (run / "report" / "comparison.png").exists() and (run / "report" / "channels.png").exists()
    train_main(flags(tmp_path, teachers[0], "--dccd-control", "none", "--resume", "auto", "--epochs", 2))
    assert Report.read(run).epochs == 2 and "has no accuracy" in capsys.readouterr().out
    before = json.loads((run / "report" / "report.json").read_text())
    redraw(run, None, HubPublisher)
    assert json.loads((run / "report" / "report.json").read_text()) == before
