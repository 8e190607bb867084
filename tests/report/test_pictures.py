"""The pictures, from numbers that need not come from a training."""

import csv
import sys

import pytest
import torch

from dccd_timm.report.figures import pyplot, save_figure
from dccd_timm.report.pictures import (
    PICTURES,
    STUDENT,
    STUDENT_TEACHER,
    Evidence,
    Picture,
    draw_classes,
    draw_curves,
    draw_pictures,
    draw_redundancy,
    draw_views,
)
from dccd_timm.report.schema import Classes, ClassReport, ConfusedPair, NetworkReport, Report


@pytest.fixture
def summary(tmp_path):
    """A function that writes a summary.csv with these loss terms."""

    def write(terms, name="summary.csv"):
        columns = [
            "epoch",
            "train_loss",
            *(f"train_{t}" for t in terms),
            "train_views_per_second",
            "eval_top1",
            "eval_top5",
        ]
        with (tmp_path / name).open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(columns)
            for epoch in range(3):
                writer.writerow([epoch, *(1 + k + epoch for k in range(len(columns) - 4)), 100, 50 + epoch, 90])
        return tmp_path / name

    return write


def report(**changed):
    pair = ConfusedPair(true="cat", answer="dog", student=25.0, teacher=10.0, control=30.0)
    rows = [ClassReport(name=f"class {k}", images=4, student=50.0, teacher=60.0, change=k - 15.0) for k in range(30)]
    classes = Classes(reference="teacher", control="student by mirroring", per_class=rows, confused=[pair],
                      outcomes={"both right": 60.0, "different mistakes": 40.0}, agreement=60.0)  # fmt: skip
    values = dict(
        method="dccd", student=NetworkReport(name="s", top1=52.0, top5=90.0), classes=classes,
        teacher=NetworkReport(name="t", top1=75.0, top5=95.0), control=NetworkReport(label="student by mirroring"),
    )  # fmt: skip
    return Report(**values | changed)


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_every_term_has_a_line_of_its_own_however_many_there_are(summary):
    terms = [f"term{k}_loss" for k in range(12)]
    figure = draw_curves(pyplot(), Evidence(report(), {"student (dccd)": summary(terms)}))
    axis = figure.axes[0]
    assert labels(axis) == ["loss (weighted sum)", *(f"term{k} loss" for k in range(12))]
    assert len({(line.get_color(), str(line._unscaled_dash_pattern)) for line in axis.lines}) == 13
    assert list(axis.lines[3].get_ydata()) == [4, 5, 6]


def test_accuracies_of_both_runs_and_the_teacher_share_a_panel(summary):
    runs = {"student (dccd)": summary(["task_loss"]), "student by mirroring": summary(["task_loss"], "control.csv")}
    figure = draw_curves(pyplot(), Evidence(report(), runs))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*runs, "teacher"]
    figure = draw_curves(pyplot(), Evidence(report(teacher=None), runs))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(runs)


def test_the_classes_that_changed_most_are_shown():
    figure = draw_classes(pyplot(), Evidence(report(), {}))
    shown = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert len(shown) == 20 and shown[0] == "class 0 (50 %)" and shown[-1] == "class 29 (50 %)"
    assert labels(figure.axes[2]) == ["student", "student by mirroring", "teacher"]
    assert "60.0 %" in figure.axes[0].get_title()


def test_the_control_goes_by_its_label():
    features = {name: torch.randn(20, 4) for name in ("teacher", "student", "control", "student before training")}
    figure = draw_redundancy(pyplot(), Evidence(report(), {}, features))
    assert [label.split(":")[0] for label in labels(figure.axes[0])] == [
        "teacher", "student", "student by mirroring", "student before training",
    ]  # fmt: skip


def test_all_pictures_are_drawn_and_nothing_else(summary, tmp_path):
    pyplot().close("all")
    matrix = torch.eye(200)
    evidence = Evidence(
        report(), {"student (dccd)": summary(["task_loss"])}, {"student": torch.randn(20, 4)},
        {kind: {"before": matrix, "after": matrix} for kind in (STUDENT, STUDENT_TEACHER)},
    )  # fmt: skip
    draw_pictures(tmp_path, evidence)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {f"{name}.png" for name in PICTURES}
    assert all(path.stat().st_size > 10_000 for path in (tmp_path / "report").iterdir())
    assert not pyplot().get_fignums()  # no figure is left open


def test_a_picture_that_fails_leaves_the_others_and_none_of_an_earlier_report(summary, tmp_path, monkeypatch, caplog):
    def fail(plt, evidence):
        plt.figure()
        raise RuntimeError("no such colour")

    monkeypatch.setitem(PICTURES, "classes", Picture(fail, ""))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "classes.png").write_bytes(b"old")
    draw_pictures(tmp_path, Evidence(report(), {"student (dccd)": summary(["task_loss"])}))
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["curves.png"]
    assert "classes.png was not drawn: a bug of dccd-timm" in caplog.text and "errors.log" in caplog.text
    assert not pyplot().get_fignums()


def test_classes_with_any_name_are_drawn(tmp_path):
    names = ["$5 note #1", "$5 note #2", "caf\udce9", "a\nb", "{x}", "猫", "z" * 300]
    rows = [ClassReport(name=name, images=4, student=50.0) for name in names]
    pairs = [ConfusedPair(true=name, answer=names[0], student=25.0) for name in names]
    classes = Classes(reference="$x$", per_class=rows, confused=pairs)
    figure = draw_classes(pyplot(), Evidence(report(classes=classes), {}))
    save_figure(pyplot(), figure, tmp_path / "x.png")
    shown = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert shown[:2] == ["$5 note #1 (50 %)", "$5 note #2 (50 %)"] and all(len(text) < 50 for text in shown)


def test_without_validation_there_are_only_curves(summary, tmp_path):
    draw_pictures(tmp_path, Evidence(Report(), {"student (none)": summary([])}))
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["curves.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_a_column_an_image(channels, tmp_path):
    mean, std = [0.5] * channels, [0.2] * channels
    draw_views(tmp_path, torch.randn(3, 2, channels, 8, 8), torch.eye(3), mean, std, ["$5 #1", "$5 #2", "\udce9" * 99])
    assert (tmp_path / "report" / "views.png").stat().st_size > 1000


def test_without_matplotlib_nothing_is_drawn_and_a_warning_says_so(summary, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    draw_pictures(tmp_path, Evidence(Report(), {"student (none)": summary([])}))
    draw_views(tmp_path, torch.randn(1, 1, 3, 8, 8), torch.zeros(1), [0.5], [0.2], None)
    assert not (tmp_path / "report").exists() and "dccd-timm[plots]" in caplog.text
