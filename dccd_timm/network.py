"""Requests to the Hugging Face Hub: time limits, which errors are transient, and the loop that tries again."""

import contextlib
import functools
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from dccd_timm.errors import UserError, one_line

if TYPE_CHECKING:
    from httpx2 import Client, Response

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

# Seconds to connect, to read, to write and to wait for a free connection; the Hub client's own are infinite.
TIMEOUTS = (10.0, 120.0, 120.0, 10.0)
_LONGEST_WAIT = 60.0
# Seconds in which a Hub that can be reached begins to answer
_PROBE = 5.0
# Seconds until a line says what is waited for, and between that and the next ones
_ANNOUNCED = (3.0, 12.0, 15.0, 30.0, 60.0, 120.0, 240.0)
_CONFLICTS = 5


@functools.cache
def limit_requests() -> None:
    """Give the Hub client time limits, in this process."""
    set_client_factory(_create_client)


def _create_client() -> "Client":
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    client.timeout = TIMEOUTS
    client.event_hooks["response"].append(_ConflictLimit())
    return client


class _ConflictLimit:
    """Ends the client's loop over "another conflicting operation", which has neither an end nor a pause."""

    def __init__(self) -> None:
        self.conflicts = 0

    def __call__(self, response: "Response") -> None:
        """Look at every response."""
        if response.status_code == 409:
            response.read()
            if "conflicting operation" in response.text:
                self.conflicts += 1
                if self.conflicts <= _CONFLICTS:
                    time.sleep(1)
                    return
                self.conflicts = 0
                raise UserError("another operation on the repository does not end (409)")
        self.conflicts = 0


def status_code(error: BaseException) -> int | None:
    """HTTP status of an error, None for one without a response."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: not after an error of the request, the data or the settings.

    The Hub client, Xet, fsspec and datasets raise dozens of kinds without a common base class.
    """
    if isinstance(error, HfHubHTTPError):
        status = status_code(error) or 503
        return status >= 500 or status in (408, 429)
    final = FileNotFoundError, ValueError, KeyError, TypeError, AttributeError
    if isinstance(error, (*final, OfflineModeIsEnabled, LocalTokenNotFoundError)):
        return False
    return error.__cause__ is None or is_transient(error.__cause__)


def check_reachable(what: str) -> None:
    """Find out in seconds that there is no way to the Hub, before something that is not in the cache is downloaded: the
    Hub's client would try for 23 s for every file. An answer of the Hub is enough, whatever it is.

    Raises:
        UserError: ``what`` cannot be had, since two tries got no answer.
    """
    from huggingface_hub.utils import get_session

    for wait in (1.0, None):
        try:
            get_session().head(constants.ENDPOINT, timeout=_PROBE)
            return
        except Exception as error:  # of an HTTP client that differs between versions
            if not is_transient(error):  # HF_HUB_OFFLINE, which is said where the cache has no copy
                return
            if wait is None:
                raise UserError(
                    f"{what}: {constants.ENDPOINT} cannot be reached ({one_line(error, 120)}), and the cache has no"
                    " copy: check the network; without one, bring the model's folder from elsewhere and name it,"
                    " local-dir:FOLDER"
                ) from error
            time.sleep(wait)


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Run a block that may wait for the Hub: a line says so after 3 seconds, and again ever less often."""
    done = threading.Event()

    def watch() -> None:
        begin = time.monotonic()
        for pause in _ANNOUNCED:
            if done.wait(pause):
                return
            _logger.info("%s: waiting for %s for %.0f s", what, constants.ENDPOINT, time.monotonic() - begin)

    thread = threading.Thread(target=watch, daemon=True)
    if os.environ.get("RANK", "0") == "0":
        thread.start()
    try:
        yield
    finally:
        done.set()


class Patience:
    """Waits between tries, twice as long each time, or as long as the Hub asks.

    Args:
        seconds: it gives up when the last success is longer ago than this.
        tries: it gives up after so many tries in a row.
    """

    def __init__(self, seconds: float = math.inf, tries: float = math.inf) -> None:
        self.seconds, self.tries = seconds, tries
        self.succeeded()

    def succeeded(self) -> None:
        """Start counting anew."""
        self.since, self.failures = time.monotonic(), 0

    def wait(self, what: str, error: BaseException) -> None:
        """Wait before the next try, or :meth:`give_up`."""
        self.failures += 1
        if self.failures >= self.tries or time.monotonic() - self.since > self.seconds:
            self.give_up(what, error)
        wait = min(_requested_wait(error) or 2.0 ** (self.failures - 1), _LONGEST_WAIT, self.seconds)
        _logger.warning("%s: %s; trying again in %.0f s", what, one_line(error, 160), wait)
        time.sleep(wait)

    def give_up(self, what: str, error: BaseException) -> NoReturn:
        """Raise the error of the last try."""
        raise error


def retry(
    action: Callable[[], _T], what: str, patience: Patience, may_repeat: Callable[[BaseException], bool] | None = None
) -> _T:
    """Return what ``action`` returns; after a transient error try it again, while ``patience`` lasts.

    ``may_repeat`` says which of the transient errors are worth it, all of them without it.
    """
    while True:
        try:
            return action()
        except Exception as error:
            if not is_transient(error) or (may_repeat and not may_repeat(error)):
                raise
            patience.wait(what, error)


def _requested_wait(error: BaseException) -> float | None:
    """Seconds that the Hub asks to wait, and one to be sure."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    limit, after = headers.get("RateLimit", ""), headers.get("Retry-After", "")
    found = re.search(r"t=(\d+)", limit) or re.fullmatch(r"(\d+)", after)
    return float(found[1]) + 1 if found else None
