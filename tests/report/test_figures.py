"""Names are drawn as they are, whatever characters they have."""

import warnings

import pytest
from PIL import Image

from dccd_timm.report.figures import plain, pyplot, save_figure

NAMES = ["$5 note #1", "US$ $", "a_b$_^{", "a\\b", "{0} {}", "%s %d", "caf\udce9", "\ud83d", "a\nb\tc", "\x00\x1b[31m", "_hidden",
         "猫", "🍕", "قطة", "\u202eabc", "y" * 200, "<b>&amp;", " lead", ""]  # fmt: skip


def test_a_name_is_one_line_that_can_be_printed():
    assert plain("a\nb\tc") == "a b c" and plain(" lead") == "lead" and plain("$5 {x}") == "$5 {x}"
    assert plain("caf\udce9") == "caf\ufffd" and plain("\u202eabc\x1b[0m") == "abc[0m"
    assert plain("y" * 200) == "y" * 37 + "..." and plain("猫🍕قطة") == "猫🍕قطة"
    assert len(plain("y" * 200, 16)) == 16


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_every_name_is_drawn(name, tmp_path):
    plt = pyplot()
    figure, axis = plt.subplots(layout="constrained")
    axis.barh([0], [1])
    axis.set_yticks([0], [f"{plain(name)} (50 %)"])
    axis.set_title(plain(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(plt, figure, tmp_path / "report" / "x.png")
    assert Image.open(tmp_path / "report" / "x.png").size == (704, 528)
    assert axis.get_title() == plain(name) and not plt.get_fignums()


def test_characters_without_a_font_are_one_line(tmp_path, caplog):
    plt = pyplot()
    plt.rcParams["font.family"] = ["DejaVu Sans"]
    figure, axis = plt.subplots()
    axis.set_title("猫狗鸟")
    save_figure(plt, figure, tmp_path / "x.png")
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path / 'x.png'} shows boxes for characters that no installed font has"
    ]
