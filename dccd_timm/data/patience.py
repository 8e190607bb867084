"""Waiting for a remote source of data, up to ``--data-timeout``."""

import functools
from typing import NoReturn

from huggingface_hub.errors import HfHubHTTPError

from dccd_timm.errors import START_AGAIN, UserError, one_line
from dccd_timm.network import Patience


@functools.cache
def disable_inner_retries() -> None:
    """Let datasets try once only: it would retry for half an hour, and the waiting here ends at ``--data-timeout``."""
    import datasets.config

    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    for operation in ("READ", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT", "OPEN"):
        setattr(datasets.config, f"STREAMING_{operation}_RETRY_INTERVAL", 0)


def is_offline() -> bool:
    """Whether the user keeps datasets from the network, by HF_HUB_OFFLINE or HF_DATASETS_OFFLINE."""
    import datasets.config

    return bool(datasets.config.HF_HUB_OFFLINE)


def is_of_network(error: BaseException) -> bool:
    """Whether a network is the cause of an error; not a data set that cannot be opened.

    What an error merely came after does not count: datasets finds out by a 404 that a data set is a script.
    """
    seen: BaseException | None = error
    while seen is not None:
        module = type(seen).__module__.split(".")[0]
        if isinstance(seen, HfHubHTTPError | OSError) or module in ("httpx", "httpx2", "aiohttp", "requests"):
            return True
        seen = seen.__cause__
    return False


class DataPatience(Patience):
    """Gives up ``seconds`` after the last data, with one line for the user."""

    def give_up(self, what: str, error: BaseException) -> NoReturn:
        """Raise a UserError that names the option."""
        raise UserError(
            f"{what} gave no data for {self.seconds:.0f} s (--data-timeout): {one_line(error, 160)}; when the"
            f" connection is back, {START_AGAIN}"
        ) from error
