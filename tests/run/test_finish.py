"""What a finished run reports, from networks and reports that need no training."""

import pytest
import timm
import torch

from dccd_timm.engine.evaluate import Evaluation
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import NetworkReport, Report, SplitReport, SplitReports
from dccd_timm.run.finish import add_metrics, add_validation, control_report, student_report, write_report


class Cards:
    """A publisher that only writes cards, or fails."""

    def __init__(self, error=None):
        self.error = error

    def write_card(self, folder):
        if self.error:
            raise self.error
        (folder / "README.md").write_text("card")


@pytest.fixture
def evaluation():
    metrics = {
        name: {"loss": 0.5 + k, "top1": 60.0 + k, "top5": 90.0 + k} for k, name in enumerate(("student", "teacher"))
    }
    answers = {"student": torch.tensor([0, 1, 1, 1]), "teacher": torch.tensor([0, 1, 0, 1])}
    features = {name: torch.randn(40, 4) for name in ("student", "teacher", "student before training")}
    return Evaluation(metrics, torch.tensor([0, 1, 0, 1]), answers, features)


def test_the_student_goes_by_its_name_and_a_folder_by_its_architecture():
    network = timm.create_model("test_resnet", num_classes=2)
    recipe = load_recipe(["--data-dir", "d", "--model", "test_resnet.r160_in1k", "--kd-distill-type", "none"])
    found = student_report(recipe, network, network)
    assert (found.name, found.method, found.start) == ("test_resnet.r160_in1k", "none", None)
    assert found.parameters_m == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, abs=1e-4)
    recipe = load_recipe(["--data-dir", "d", "--model", "local-dir:somewhere/best", "--kd-distill-type", "none"])
    assert student_report(recipe, network, network).name == "test_resnet"


def test_a_student_that_was_pretrained_says_where_it_started():
    network = timm.create_model("test_resnet", num_classes=2)
    recipe = load_recipe(["--data-dir", "d", "--model", "test_resnet", "--pretrained", "--kd-distill-type", "none"])
    assert student_report(recipe, network, network).start.hub_id == "timm/test_resnet.r160_in1k"


def test_agreement_with_the_teacher_is_the_students(evaluation):
    student, teacher = NetworkReport(), NetworkReport()
    add_metrics(student, "student", evaluation), add_metrics(teacher, "teacher", evaluation)
    assert (student.loss, student.top1, student.top5, student.agreement) == (0.5, 60, 90, 75)
    assert (teacher.top1, teacher.agreement) == (61, None)
    del evaluation.answers["teacher"]
    alone = NetworkReport()
    add_metrics(alone, "student", evaluation)
    assert alone.agreement is None


def test_a_control_is_labelled_and_its_own_report_stays_as_it_is():
    control = Report(method="logit", student=NetworkReport(name="s", top1=50.0, agreement=70.0))
    found = control_report(control, Report(method="dccd"))
    assert (found.label, found.top1, found.agreement) == ("student by KD on logits", 50, 70)
    assert control.student.label is None


def test_report_and_pictures_are_written_together(evaluation, tmp_path):
    for folder in (tmp_path, tmp_path / "control"):
        folder.mkdir(exist_ok=True)
        (folder / "summary.csv").write_text(
            "epoch,train_loss,train_views_per_second,eval_top1,eval_top5\n0,1,9,50,90\n"
        )
    report = Report(method="dccd", student=NetworkReport(top1=60.0), control=NetworkReport(label="student by KD"))
    write_report(tmp_path, report, evaluation, ["cat", "dog"], tmp_path / "control", Cards())
    written = Report.read(tmp_path)
    assert written == report and written.classes.per_class[1].name == "dog"
    assert written.classes.agreement == 75 and written.redundancy.student.channels == 4
    assert len(list((tmp_path / "report").glob("*.png"))) == 4 and (tmp_path / "README.md").is_file()


def test_without_validation_the_report_has_no_evidence(tmp_path):
    (tmp_path / "summary.csv").write_text("epoch,train_loss,train_views_per_second\n0,1,9\n")
    write_report(tmp_path, Report(), None, None, tmp_path / "control", Cards())
    assert Report.read(tmp_path) == Report()
    assert [path.name for path in (tmp_path / "report").glob("*.png")] == ["curves.png"]


def test_nothing_but_report_json_can_end_a_finished_training(evaluation, tmp_path, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("out of ink")

    (tmp_path / "summary.csv").write_text("epoch,train_loss,train_views_per_second\n0,1,9\n")
    for name in ("gather_evidence", "draw_pictures", "print_closing"):
        monkeypatch.setattr(f"dccd_timm.run.finish.{name}", fail)
    report = Report(student=NetworkReport(top1=60.0))
    write_report(tmp_path, report, evaluation, ["cat", "dog"], tmp_path / "control", Cards(KeyError("x")))
    assert Report.read(tmp_path) == report
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(";")[0].split(":")[0] for line in lines] == [
        "the report lacks channels and classes", "no pictures", "no model card", "no closing table",
    ]  # fmt: skip
    assert (
        all("a bug of dccd-timm" in line for line in lines) and f"`dccd-timm report {tmp_path}` tries again" in lines[0]
    )
    assert (tmp_path / "errors.log").read_text().count("Traceback") == 4


def test_the_report_counts_the_images_of_both_splits(evaluation):
    report = Report(
        skipped_images=1, skipped_first=["a.png"], splits=SplitReports(train=SplitReport(images=9, skipped=1))
    )
    evaluation.skipped = {"b.png": 1, "shard 2": 30}
    add_validation(report, "test", evaluation)
    assert report.splits.validation == SplitReport(name="test", images=4, skipped=31)
    assert report.skipped_images == 32 and report.skipped_first == ["a.png", "test: b.png", "test: shard 2"]
