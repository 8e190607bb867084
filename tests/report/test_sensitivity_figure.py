"""The picture of the sensitivity: a bar for each network, change and measure."""

import pytest

from dccd_timm.report.figures import pyplot
from dccd_timm.report.schema import ChangeReport, Following, NetworkReport, Report, Sensitivity
from dccd_timm.report.sensitivity_figure import sensitivity_figure

CONTROL = NetworkReport(label="student by KD")


def sensitivity(with_control):
    control = Following(correlation=-0.2, norm_ratio=1.6, flips=4.0, flip_agreement=10.0) if with_control else None
    student = Following(correlation=0.75, norm_ratio=0.5, flips=2.0, flip_agreement=40.0)
    still = Following(correlation=0.5, norm_ratio=0.25)  # no class changed
    changes = [ChangeReport(name="noise", teacher_flips=3.0, student=student, control=control)]
    return Sensitivity(images=12, changes=[*changes, ChangeReport(name="JPEG", student=still, control=control)])


@pytest.mark.parametrize("with_control", [True, False])
def test_student_and_control_stand_side_by_side(with_control):
    figure = sensitivity_figure(pyplot(), Report(sensitivity=sensitivity(with_control), control=CONTROL))
    widths = [[round(bar.get_width(), 3) for bar in axis.patches if bar.get_width()] for axis in figure.axes]
    control = [[-0.2] * 2, [1.6] * 2, [10.0] * 2] if with_control else [[]] * 3
    assert widths == [[0.75, 0.5, *control[0]], [0.5, 0.25, *control[1]], [40.0, *control[2]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["student", "student by KD"][
        : 1 + with_control
    ]
    assert [text.get_text().split("\n")[0] for text in figure.axes[0].get_yticklabels()] == ["noise", "JPEG"]
    assert all(
        low <= bar.get_width() <= high
        for axis in figure.axes
        for low, high in [axis.get_xlim()]
        for bar in axis.patches
    )
    assert "12 images" in figure.get_suptitle()
    assert sensitivity_figure(pyplot(), Report()) is None
