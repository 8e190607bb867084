"""How every program ends: a mistake of the user's is one line and exit code 2, never a traceback."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dccd_timm.errors import UserError


class _Plain(logging.Formatter):
    """A message as it is, with its level in front of warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        """The line that is shown."""
        text = super().format(record)
        return text if record.levelno <= logging.INFO else f"{record.levelname}: {text}"


def guarded(program: Callable[[Sequence[str]], Any], argv: Sequence[str] | None) -> None:
    """Run ``program`` on the command line, or on ``argv``."""
    console = logging.StreamHandler()
    console.setFormatter(_Plain())
    logging.root.addHandler(console)
    logging.root.setLevel(logging.INFO)
    for noisy in ("timm", "accelerate", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for chatty in ("huggingface_hub", "datasets"):  # they report every try; the loader says when it waits
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        program(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
