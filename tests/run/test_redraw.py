"""A finished run's report is drawn again, alone or beside another run, and its numbers stay."""

import json
import shutil

import pytest

from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.report.pictures import PICTURES
from dccd_timm.report.schema import Report
from dccd_timm.run.redraw import redraw
from tests.conftest import run_program


@pytest.fixture(scope="module")
def finished(parquet, teacher, tmp_path_factory):
    """A run that trains without distillation, with a teacher to compare with."""
    out = tmp_path_factory.mktemp("finished")
    done = run_program(
        "--dataset", f"hfids/{parquet}", "--val-split", "test", "--model", "resnetv2_18", "--model-kwargs",
        "layers=(1,1,1)", "channels=(8,16,24)", "stem_chs=8", "--img-size", 48, "-b", 16, "-j", 0, "--epochs", 1,
        "--lr", 0.05, "--warmup-epochs", 0, "--kd-model-name", f"local-dir:{teacher}", "--kd-distill-type", "none",
        "--output", out, "--experiment", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "run"


@pytest.fixture
def run(finished, tmp_path):
    """Its copy, without pictures and card."""
    folder = shutil.copytree(finished, tmp_path / "run")
    for drawn in (folder / "README.md", *(folder / "report" / f"{name}.png" for name in PICTURES)):
        drawn.unlink()
    return folder


def test_a_student_trained_without_its_teacher_is_still_compared_with_it(finished):
    report = Report.read(finished)
    assert report.method == "none" and report.teacher.top1 is not None
    assert report.student.agreement == pytest.approx(report.classes.agreement, abs=0.005)


def test_a_report_is_drawn_again(run, fresh_accelerator, capsys):
    before = json.loads((run / "report" / "report.json").read_text())
    redraw(run, None, HubPublisher)
    after = json.loads((run / "report" / "report.json").read_text())
    assert after == before
    assert all((run / "report" / f"{name}.png").stat().st_size > 10_000 for name in PICTURES)
    assert "![redundancy](report/redundancy.png)" in (run / "README.md").read_text()
    assert f"{before['student']['top1']:.2f} %" in capsys.readouterr().out


def test_a_report_is_drawn_beside_another_run(run, teacher, fresh_accelerator, capsys):
    (run / "README.md").write_text("its own card")
    first = {path: path.read_bytes() for path in (run / "README.md", run / "report" / "report.json")}
    redraw(run, teacher.parent, HubPublisher)
    assert all(path.read_bytes() == content for path, content in first.items())
    assert "  other (resnetv2_18, none)" in (shown := capsys.readouterr().out) and "control" not in shown
    beside = run / "against-t"
    report, other = Report.read(beside), Report.read(teacher.parent)
    assert all((beside / "report" / f"{name}.png").is_file() for name in PICTURES if name != "views")
    assert report.control.label == report.classes.control == "t (none)"
    assert report.control.top1 == other.student.top1 == report.teacher.top1
    assert report.control.agreement == 100 and other.student.agreement is None  # it is the teacher
    assert report.redundancy.control == report.redundancy.teacher
    for change in report.sensitivity.changes:
        assert (change.control.correlation, change.control.norm_ratio) == (1, 1)
        assert change.control.flip_agreement in (100, None) and change.student.correlation < 0.999


def test_only_finished_runs_on_the_same_data_are_compared(run, tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        redraw(tmp_path / "nowhere", None, HubPublisher)
    other = shutil.copytree(run, tmp_path / "other")
    settings = (other / "args.yaml").read_text()
    (other / "args.yaml").write_text(settings.replace("val_split: test", "val_split: train"))
    with pytest.raises(UserError, match="were evaluated on different data"):
        redraw(run, other, HubPublisher)
