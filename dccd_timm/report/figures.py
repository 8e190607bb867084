"""matplotlib as the pictures use it: without a display, and with names drawn as they are and never as formulas."""

import logging
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

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
