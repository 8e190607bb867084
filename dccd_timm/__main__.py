"""Where the console commands begin; ``python -m dccd_timm`` is dccd-timm.

Each imports its program inside of a function, so that Ctrl-C in that first moment is no traceback.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run dccd-timm on the command line, or on ``argv``: one of its programs."""
    _run("main", argv)


def train(argv: Sequence[str] | None = None) -> None:
    """Run dccd-train, which is train.py."""
    _run("train_main", argv)


def validate(argv: Sequence[str] | None = None) -> None:
    """Run dccd-validate, which is validate.py."""
    _run("validate_main", argv)


def push(argv: Sequence[str] | None = None) -> None:
    """Run dccd-push."""
    _run("push_main", argv)


def report(argv: Sequence[str] | None = None) -> None:
    """Run dccd-report."""
    _run("report_main", argv)


def _run(name: str, argv: Sequence[str] | None) -> None:
    try:
        from dccd_timm import cli
    except KeyboardInterrupt:
        sys.exit(130)
    getattr(cli, name)(argv)


if __name__ == "__main__":
    main()
