"""report.json: what is written comes back, and the reports of other versions load."""

import json

from dccd_timm.report.schema import (
    Channels,
    Classes,
    ClassReport,
    ConfusedPair,
    Hardware,
    Matched,
    NetworkReport,
    Origin,
    Redundancy,
    Report,
    SplitReport,
    SplitReports,
)


def full_report():
    channels = Channels(effective_rank=3.5, mean_abs_correlation=0.25, channels=8)
    return Report(
        method="dccd", terms={"task_loss": 1.0, "contrast_loss": 5.0}, views=2, views_seen=96, epochs=3, seconds=1.5,
        best_epoch=2, skipped_images=1, skipped_first=["a.png"],
        student=NetworkReport(name="s", method="dccd", parameters_m=1.2, loss=0.5, top1=70.0, top5=90.0, agreement=80.0,
                              start=Origin(name="timm/s", hub_id="timm/s", license="mit")),
        teacher=NetworkReport(name="t", parameters_m=21.0, top1=75.0, top5=92.0, commit="c" * 40),
        splits=SplitReports(train=SplitReport(name="train", images=40, skipped=1)),
        hardware=Hardware(world=2, device="cuda", precision="amp bfloat16"),
        redundancy=Redundancy(student=channels, student_before_training=channels,
                              student_teacher=Matched(before=0.1, after=0.9)),
        classes=Classes(reference="teacher", per_class=[ClassReport(name="cat", images=4, student=50, change=-25)],
                        confused=[ConfusedPair(true="cat", answer="dog", student=25, teacher=0.0)],
                        outcomes={"both right": 50.0}, agreement=80.0),
    )  # fmt: skip


def test_a_report_comes_back_as_it_was_written(tmp_path):
    report = full_report()
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["report.json"]
    assert Report.read(tmp_path / "nowhere") is None


def test_keys_are_those_that_users_read(tmp_path):
    full_report().write(tmp_path)
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(found) == {
        "method", "loss_type", "terms", "views", "images_seen", "views_seen", "changes", "epochs", "seconds", "best_epoch", "weights", "license", "complete",
        "skipped_updates", "skipped_images", "skipped_first", "student", "teacher", "hardware", "redundancy", "classes",
        "splits", "further_controls",
    }  # fmt: skip
    assert found["weights"] is None and found["student"]["start"]["hub_id"] == "timm/s"
    assert set(found["teacher"]) == {"name", "commit", "method", "parameters_m", "top1", "top5"}
    assert set(found["redundancy"]) == {"student", "student_before_training", "student_teacher"}
    assert found["splits"] == {"train": {"name": "train", "images": 40, "skipped": 1}}
    assert found["classes"]["confused"] == [{"true": "cat", "answer": "dog", "student": 25, "teacher": 0.0}]


def test_reports_of_other_versions_load(tmp_path):
    (tmp_path / "report").mkdir()
    old = {"method": "none", "epochs": 3, "student": {"name": "s", "top1": 50.0, "mood": "good"}, "of_tomorrow": [1]}
    (tmp_path / "report" / "report.json").write_text(json.dumps(old))
    report = Report.read(tmp_path)
    assert report == Report(method="none", epochs=3, student=NetworkReport(name="s", top1=50.0))
    assert report.complete and report.terms == {} and report.teacher is None
