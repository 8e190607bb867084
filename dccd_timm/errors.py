"""The one exception that a user's mistake raises, an error's text on one line, and errors that must not end a run."""

import contextlib
import logging
import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path

_logger = logging.getLogger(__name__)

# Tracebacks of bugs, in the folder of a run
LOG_FILE = "errors.log"
# Ends the text of an error after which a run can be continued: where the folder and its state are known, resume with
# it takes its place.
START_AGAIN = "start again"


class UserError(ValueError):
    """A mistake in flags, data or surroundings; its text is one line that names the cause and the fix."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The error's text without line breaks, cut at ``limit`` characters; its type for an error without text."""
    text = " ".join(printable(str(error)).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " ..."


def printable(text: str) -> str:
    """Text that every log and file takes: bytes of a file name that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def composed(name: str) -> str:
    """A name in the form in which it is compared: macOS writes an accent in a file name as a character of its own."""
    return unicodedata.normalize("NFC", name)


@contextlib.contextmanager
def logged_failure(consequence: str, folder: Path) -> Iterator[None]:
    """Run a block whose error must not end the program: it becomes a warning, ``consequence`` and then the cause.

    The traceback of a bug goes to errors.log in ``folder``.
    """
    try:
        yield
    except Exception as error:
        expected = isinstance(error, UserError | OSError)
        _logger.warning("%s: %s", consequence, one_line(error) if expected else report_bug(error, folder))


def report_bug(error: BaseException, folder: Path) -> str:
    """Append the traceback to errors.log in ``folder``; returns a line that says what failed, where, and that it is a
    bug of this package."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if "dccd_timm" in Path(frame.filename).parts] or frames
    place = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    line = f"a bug of dccd-timm{place} ({type(error).__name__}: {one_line(error, 160)})"
    try:
        with (folder / LOG_FILE).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:  # a folder that is only read
        return line
    return f"{line}; its traceback is in {folder / LOG_FILE}"
