"""How every program ends: a mistake of the user's is one line and exit code 2, never a traceback."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from timm.utils import setup_default_logging

from dccd_timm.errors import UserError


def guarded(story: Callable[[Sequence[str]], Any], argv: Sequence[str] | None) -> None:
    """Run ``story`` on the command line, or on ``argv``."""
    setup_default_logging()
    for noisy in ("timm", "accelerate", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for nervous in ("huggingface_hub", "datasets"):  # they report every try; the loader says when it waits
        logging.getLogger(nervous).setLevel(logging.ERROR)
    try:
        story(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
