"""The pictures, from numbers that need not come from a training."""

import csv
import sys

import pytest
import torch

from dccd_timm.report.figures import pyplot
from dccd_timm.report.pictures import (
    PICTURES,
    STUDENT,
    STUDENT_TEACHER,
    Evidence,
    Picture,
    draw_channels,
    draw_comparison,
    draw_curves,
    draw_pictures,
    draw_redundancy,
    draw_views,
)
from dccd_timm.report.schema import (
    ChangeReport,
    Classes,
    ClassReport,
    ConfusedPair,
    Following,
    NetworkReport,
    Report,
    Sensitivity,
)


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
    changes = [ChangeReport(name="noise", student=Following(correlation=0.5, norm_ratio=0.25))]
    values = dict(
        sensitivity=Sensitivity(images=4, changes=changes),
        method="dccd", student=NetworkReport(name="s", top1=52.0, top5=90.0, agreement=60.0), classes=classes,
        teacher=NetworkReport(name="t", top1=75.0, top5=95.0),
        control=NetworkReport(name="s", label="student by mirroring", top1=50.5, agreement=57.0),
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


def bars(axis):
    return {round(bar.get_y() + bar.get_height() / 2): round(bar.get_width(), 2) for bar in axis.patches}


def test_the_comparison_has_a_bar_for_each_network_and_the_gain_over_the_control():
    figure = draw_comparison(pyplot(), Evidence(report(), {}))
    top1, agreement = figure.axes
    assert bars(top1) == {0: 75.0, 1: 52.0, 2: 50.5} and bars(agreement) == {1: 60.0, 2: 57.0}
    rows = [text.get_text().split("\n") for text in top1.get_yticklabels()]
    assert rows == [
        ["teacher", "t, 0.000 M"],
        ["student by DCCD", "s, 0.000 M"],
        ["student by mirroring", "s, 0.000 M"],
    ]
    assert figure.get_suptitle() == "+1.50 points of top-1 over student by mirroring"
    further = [NetworkReport(name="s", top1=40.0, agreement=45.0, label="student without distillation")]
    figure = draw_comparison(pyplot(), Evidence(report(further_controls=further), {}))
    assert bars(figure.axes[0]) == {0: 75.0, 1: 52.0, 2: 50.5, 3: 40.0} and bars(figure.axes[1])[3] == 45.0
    assert figure.axes[0].get_yticklabels()[3].get_text().startswith("student without distillation")
    assert figure.get_suptitle() == "+1.50 points of top-1 over student by mirroring"
    figure = draw_comparison(pyplot(), Evidence(report(control=None), {}))
    assert bars(figure.axes[0]) == {0: 75.0, 1: 52.0} and "points" not in figure.get_suptitle()
    assert draw_comparison(pyplot(), Evidence(report(control=None, teacher=None), {})) is None
    assert draw_comparison(pyplot(), Evidence(report(student=NetworkReport(name="s")), {})) is None


@pytest.mark.parametrize("with_control", [True, False])
def test_the_channels_of_the_control_stand_between_those_before_training_and_the_students(with_control):
    networks = ["student before training", *(["control"] if with_control else []), "student"]
    matrices = {name: torch.full((4, 4), 0.1 * k) for k, name in enumerate(networks, 1)}
    figure = draw_channels(pyplot(), Evidence(report(), {}, {}, {STUDENT: matrices, STUDENT_TEACHER: matrices}))
    titles = [axis.get_title().split("\n") for axis in figure.axes[:-1]]
    shown = ["student before training", *(["student by mirroring"] if with_control else []), "student"]
    assert [title[0] for title in titles] == shown * 2
    numbers = [f"{0.1 * k:.2f}" for k in range(1, len(networks) + 1)]
    assert [title[1].split()[-1] for title in titles] == numbers * 2


def test_the_control_goes_by_its_label():
    features = {name: torch.randn(20, 4) for name in ("teacher", "student", "control", "student before training")}
    figure = draw_redundancy(pyplot(), Evidence(report(), {}, features))
    assert [text.get_text().split(":")[0] for text in figure.legends[0].get_texts()] == [
        "teacher", "student", "student by mirroring", "student before training",
    ]  # fmt: skip


def test_no_legend_lies_on_the_lines(summary):
    features = {name: torch.randn(20, 4) for name in ("teacher", "student")}
    for figure in (draw_curves(pyplot(), Evidence(report(), {"student": summary([f"t{k}_loss" for k in range(9)])})),
                   draw_redundancy(pyplot(), Evidence(report(), {}, features))):  # fmt: skip
        figure.draw_without_rendering()
        found = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
        assert found
        for legend in found:
            covered = [
                extent() for axis in figure.axes for extent in (axis.get_window_extent, axis.title.get_window_extent)
            ]
            assert not any(legend.get_window_extent().overlaps(extent) for extent in covered)


def test_numbers_of_axes_are_no_formulas():
    figure = draw_redundancy(pyplot(), Evidence(report(), {}, {"student": torch.randn(20, 4)}))
    figure.draw_without_rendering()
    assert not any("$" in text.get_text() for axis in figure.axes for text in axis.get_yticklabels())


def test_all_pictures_are_drawn_and_nothing_else(summary, tmp_path):
    pyplot().close("all")
    matrix = torch.eye(200)
    evidence = Evidence(
        report(), {"student (dccd)": summary(["task_loss"])}, {"student": torch.randn(20, 4)},
        {kind: {"student before training": matrix, "student": matrix} for kind in (STUDENT, STUDENT_TEACHER)},
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
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "comparison.png",
        "curves.png",
        "sensitivity.png",
    }
    assert "classes.png was not drawn: a bug of dccd-timm" in caplog.text and "errors.log" in caplog.text
    assert not pyplot().get_fignums()


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
