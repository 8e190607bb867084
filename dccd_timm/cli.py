"""The two programs, dccd-train and dccd-validate: a mistake of the user's is one line and exit code 2."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from timm.utils import setup_default_logging

from dccd_timm.recipe import UserError, load_recipe, load_validation


def train_main(argv: Sequence[str] | None = None) -> None:
    """Run train.py."""

    def story(arguments: Sequence[str]) -> None:
        recipe = load_recipe(arguments)
        from dccd_timm.run import train  # torch, timm and datasets load only once the flags are right

        train(recipe)

    _guarded(story, sys.argv[1:] if argv is None else argv)


def validate_main(argv: Sequence[str] | None = None) -> None:
    """Run validate.py."""

    def story(arguments: Sequence[str]) -> None:
        options = load_validation(arguments)
        from dccd_timm.validate import validate

        validate(options)

    _guarded(story, sys.argv[1:] if argv is None else argv)


def _guarded(story: Callable[[Sequence[str]], Any], argv: Sequence[str]) -> None:
    """Run ``story``; a UserError becomes one line, and nobody's traceback."""
    setup_default_logging()
    for noisy in ("timm", "accelerate", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for nervous in ("huggingface_hub", "datasets"):  # they report every try; the loader says when it waits
        logging.getLogger(nervous).setLevel(logging.ERROR)
    try:
        story(argv)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        print(f"error: {error}" if rank == "0" else f"rank {rank}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
