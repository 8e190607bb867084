"""Waiting for a remote source: which errors may pass, how long to wait for it, and time limits for requests."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import huggingface_hub.errors
import pyarrow

from dccd_timm.errors import UserError, one_line

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

# Seconds that one request may take; the Hub client itself would wait for ever.
_REQUEST_SECONDS = 60.0
_LONGEST_WAIT = 60.0


def limit_requests() -> None:
    """Give this process's Hub client a time limit; a forked worker starts with a new client."""
    huggingface_hub.get_session().timeout = _REQUEST_SECONDS


def few_inner_retries() -> None:
    """Have datasets try once: it would go on for half an hour, and the waiting here ends at ``--data-timeout``."""
    import datasets.config

    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    for word in ("READ", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT", "OPEN"):
        setattr(datasets.config, f"STREAMING_{word}_RETRY_INTERVAL", 0)


def may_pass(error: BaseException) -> bool:
    """Whether a remote source may answer again: not when it says that something is wrong with the request or data."""
    if isinstance(error, huggingface_hub.errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", 503)
        return status >= 500 or status in (408, 429)
    final = FileNotFoundError, pyarrow.ArrowInvalid, ValueError, KeyError, TypeError, AttributeError
    if isinstance(error, (*final, huggingface_hub.errors.OfflineModeIsEnabled)):
        return False
    return error.__cause__ is None or may_pass(error.__cause__)


class Patience:
    """Waits between tries, longer each time, and gives up ``seconds`` after the last sign of life."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.alive()

    def alive(self) -> None:
        """Data came: begin to count anew."""
        self.since, self.tries = time.monotonic(), 0

    def wait(self, what: str, error: BaseException) -> None:
        """Wait before the next try.

        Raises:
            UserError: when the time is over.
        """
        if time.monotonic() - self.since > self.seconds:
            raise UserError(
                f"{what} gave no data for {self.seconds:.0f} s (--data-timeout): {one_line(error, 160)}; when the"
                " connection is back, go on with --resume"
            ) from error
        wait = min(_LONGEST_WAIT, 2.0**self.tries, self.seconds)
        self.tries += 1
        _logger.warning("%s: %s; trying again in %.0f s", what, one_line(error, 160), wait)
        time.sleep(wait)


def patiently(action: Callable[[], _T], what: str, seconds: float) -> _T:
    """What ``action`` returns, tried again while its errors may pass."""
    patience = Patience(seconds)
    while True:
        try:
            return action()
        except Exception as error:  # the Hub client, httpx and file systems share no base class
            if not may_pass(error):
                raise
            patience.wait(what, error)
