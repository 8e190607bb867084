"""matplotlib as the pictures use it: without a display, with names drawn as they are and never as formulas, and with
colours that colour-blind readers tell apart."""

import logging
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

# Okabe and Ito's palette, without its yellow, which is too light for lines on white
BLUE, ORANGE, BLACK, PURPLE = "#0072B2", "#E69F00", "#000000", "#CC79A7"
SKY, VERMILION, GREEN = "#56B4E9", "#D55E00", "#009E73"
# A network has the same colour in every picture; these four are far apart for readers without green cones too
ROLES = {"teacher": ORANGE, "student": BLUE, "control": BLACK, "student before training": PURPLE}
# Longer names would leave no room for what they name
_NAME_LENGTH = 40
# Used where they are installed: matplotlib's own font has no Chinese, Japanese, Korean or emoji
_MORE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC",
               "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji",
               "Segoe UI Emoji", "Symbola")  # fmt: skip


def pyplot() -> ModuleType | None:
    """matplotlib's pyplot without a display, or None when it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    plt.rcParams.update(
        {
            "text.parse_math": False,  # "$5 note" is a name and no formula
            "text.usetex": False,
            "font.family": ["DejaVu Sans", *(font for font in _MORE_FONTS if font in installed)],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.axisbelow": True,
        }
    )
    module: ModuleType = plt
    return module


def plain(name: str, length: int = _NAME_LENGTH) -> str:
    """A name as it is drawn: on one line, cut at ``length`` characters, without those that cannot be printed."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", name)  # bytes of a file name that are no UTF-8
    text = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    return text if len(text) <= length else text[: length - 3] + "..."


def title_above_legend(axis: "Axes", title: str, columns: int = 4) -> None:
    """A title, and below it the legend of an axis: beside or on the lines it would take their room."""
    legend = axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, fontsize=9)
    rows = -(-len(legend.get_texts()) // columns)
    axis.set_title(title, pad=12 + 15 * rows)


def save_figure(plt: ModuleType, figure: "Figure", path: Path) -> None:
    """Write a figure as PNG and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if figure.get_layout_engine() is None:
            figure.tight_layout()
        figure.savefig(path, dpi=110)
    if any("Glyph" in str(warning.message) for warning in caught):  # one warning for each character
        _logger.warning("%s shows boxes for characters that no installed font has", path)
    plt.close(figure)
