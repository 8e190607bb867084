"""Names are drawn as they are, whatever characters they have; networks have colours that everybody tells apart."""

import itertools
import warnings

import numpy as np
import pytest
from PIL import Image

from dccd_timm.report.figures import BLUE, ROLES, VERMILION, plain, pyplot, save_figure

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


def as_deuteranopes_see(colour):
    """A colour without green cones (Machado, Oliveira, Fernandes 2009), as CIELAB."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    part = np.array(xyz) @ np.clip(np.array(seen) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(part > 216 / 24389, np.cbrt(part), (24389 / 27 * part + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colours", [ROLES.values(), (BLUE, VERMILION)], ids=["networks", "better and worse"])
def test_colours_are_far_apart_with_deuteranopia(colours):
    for one, other in itertools.combinations(map(as_deuteranopes_see, colours), 2):
        assert np.linalg.norm(one - other) > 40  # green and grey, as they were, have 11
