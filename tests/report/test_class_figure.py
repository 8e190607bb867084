"""The picture of the classes: what it shows, that its bars stay visible, and that any name can be drawn."""

import pytest

from dccd_timm.report.class_figure import classes_figure
from dccd_timm.report.figures import BLUE, VERMILION, pyplot, save_figure
from dccd_timm.report.schema import Classes, ClassReport, ConfusedPair


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    pyplot().close("all")


def many(**changed):
    """Thirty classes, of which half gained, with a confused pair of all three networks."""
    pair = ConfusedPair(true="cat", answer="dog", student=25.0, teacher=10.0, control=30.0)
    rows = [ClassReport(name=f"class {k}", images=4, student=50.0, teacher=60.0, change=k - 15.0) for k in range(30)]
    values = dict(reference="teacher", control="student by mirroring", per_class=rows, confused=[pair],
                  outcomes={"both right": 60.0, "different mistakes": 40.0}, agreement=60.0)  # fmt: skip
    return Classes(**values | changed)


def legend(axis):
    return {text.get_text(): handle.get_facecolor() for text, handle in
            zip(axis.get_legend().get_texts(), axis.get_legend().legend_handles, strict=True)}  # fmt: skip


def test_the_classes_that_changed_most_are_shown():
    figure = classes_figure(pyplot(), many())
    shown = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert len(shown) == 20 and shown[0] == "class 0 (50 %)" and shown[-1] == "class 29 (50 %)"
    assert list(legend(figure.axes[2])) == ["student", "student by mirroring", "teacher"]
    assert "60.0 %" in figure.axes[0].get_title()


def test_titles_axes_and_colours_are_explained():
    from matplotlib.colors import to_rgba

    figure = classes_figure(pyplot(), many())
    assert figure.get_suptitle()
    assert all(axis.get_title() and axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    colours = legend(figure.axes[1])
    assert colours == {"student better": to_rgba(BLUE), "student worse": to_rgba(VERMILION)}
    drawn = [bar for bar in figure.axes[1].patches if bar.get_width()]
    assert all(
        bar.get_facecolor() == colours["student better" if bar.get_width() > 0 else "student worse"] for bar in drawn
    )


def test_no_legend_covers_a_bar():
    rows = [ConfusedPair(true=f"c{k}", answer="dog", student=25.0, teacher=25.0, control=25.0) for k in range(8)]
    figure = classes_figure(pyplot(), many(confused=rows))
    figure.draw_without_rendering()
    for axis in figure.axes:
        if axis.get_legend():
            for covered in (axis, axis.title):
                assert not axis.get_legend().get_window_extent().overlaps(covered.get_window_extent())


def test_a_panel_without_content_is_left_out():
    figure = classes_figure(pyplot(), many(outcomes={}, confused=[], reference="nothing"))
    assert len(figure.axes) == 1 and figure.axes[0].get_legend() is None
    assert figure.axes[0].get_xlabel() == "accuracy (%)"


def test_classes_with_any_name_are_drawn(tmp_path):
    names = ["$5 note #1", "$5 note #2", "caf\udce9", "a\nb", "{x}", "猫", "z" * 300]
    rows = [ClassReport(name=name, images=4, student=50.0) for name in names]
    pairs = [ConfusedPair(true=name, answer=names[0], student=25.0) for name in names]
    figure = classes_figure(pyplot(), Classes(reference="$x$", per_class=rows, confused=pairs))
    save_figure(pyplot(), figure, tmp_path / "x.png")
    shown = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert shown[:2] == ["$5 note #1 (50 %)", "$5 note #2 (50 %)"] and all(len(text) < 50 for text in shown)
