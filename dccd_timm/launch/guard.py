"""How every program starts and ends: its log, and a user's mistake as one line and exit code 2, never a traceback."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from dccd_timm.errors import UserError


class _Formatter(logging.Formatter):
    """A message as it is, with its level in front of warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to show."""
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"


def guarded(program: Callable[[Sequence[str]], object], argv: Sequence[str] | None) -> None:
    """Run ``program`` on the command line, or on ``argv``.

    Raises:
        SystemExit: with code 2 after a UserError, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end a run
            # and errors and output stand in their order where both go into one file
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    _log_to_console(logging.INFO)
    warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # it shares the cores with others
    try:
        program(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


def log_in_worker(number: int) -> None:
    """Log what a rank would in its loader worker ``number``, which has no log of its own; for ``worker_init_fn``."""
    _log_to_console(logging.WARNING)


def _log_to_console(level: int) -> None:
    # Both libraries log every retry, in two lines each, twice; they read this when they are imported.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    console = logging.StreamHandler()
    console.setFormatter(_Formatter())
    for handler in logging.root.handlers[:]:
        if isinstance(handler.formatter, _Formatter):  # of a program that ran before in this process
            logging.root.removeHandler(handler)
    logging.root.addHandler(console)
    logging.root.setLevel(level)
    for name in ("torch", "timm", "accelerate", "httpx", "httpx2", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("huggingface_hub", "datasets"):  # they log every retry; the loader logs when it waits
        logging.getLogger(name).setLevel(logging.ERROR)
