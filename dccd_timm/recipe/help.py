"""What the programs print about themselves: --help with the usual options, --help-all with every one, --version."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from dccd_timm.errors import UserError

# Columns of the screen at most: longer lines are hard to read.
_WIDEST = 120
_USUAL = "Usual options"


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, without the usage of 190 options.

    Args:
        prog: the command.
        description: what it does.
        examples: commands; a long one goes on after a backslash.
        usage: its arguments, where argparse's own line would be too long.
    """

    def __init__(self, prog: str, description: str, examples: Sequence[str] = (), usage: str | None = None) -> None:
        super().__init__(prog=prog, usage=usage, add_help=False, allow_abbrev=False, formatter_class=_Formatter)
        width = _width()
        self.description = textwrap.fill(description, width)
        self.examples, self.hidden = examples, dict[str, int]()

    def add_about(self, has_more: bool = False) -> None:
        """Add --help, --version and, for a program that ``has_more`` options, --help-all; after all other options."""
        about = self.add_argument_group("Help")
        about.add_argument("-h", "--help", action="help", help="show this text and end")
        if has_more:
            about.add_argument("--help-all", action="help", help="show every option and end")
        about.add_argument("--version", action=_Version, help="show the version and end")

    def usual_group(self) -> argparse._ArgumentGroup:
        """The group that stands first."""
        return self.add_argument_group(_USUAL)

    def format_help(self) -> str:
        """The whole text."""
        parts = []
        if self.hidden:
            groups = ", ".join(f"{title} {count}" for title, count in self.hidden.items())
            parts.append(textwrap.fill(f"--help-all shows {sum(self.hidden.values())} more: {groups}", _width()))
        if self.examples:
            parts.append("examples:\n" + textwrap.indent("\n".join(self.examples), "  "))
        self.epilog = "\n\n".join(parts)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise it for the program to print."""
        raise UserError(message)


def _width() -> int:
    """Columns of the terminal, as argparse finds them."""
    return min(argparse.HelpFormatter("")._width, _WIDEST)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal; descriptions and examples keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=max(24, _width() * 3 // 10), width=_width())

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # local-dir:path is one word


class _Version(argparse.Action):
    """Prints the version; it is looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import dccd_timm

        sys.stdout.write(f"dccd-timm {dccd_timm.__version__}\n")
        parser.exit()
