"""Waiting for a remote source of data, up to ``--data-timeout``."""

from typing import NoReturn

from dccd_timm.errors import UserError, one_line
from dccd_timm.network import Patience


def disable_inner_retries() -> None:
    """Let datasets try once only: it would retry for half an hour, and the waiting here ends at ``--data-timeout``."""
    import datasets.config

    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    for operation in ("READ", "READ_SERVER_UNAVAILABLE", "READ_RATE_LIMIT", "OPEN"):
        setattr(datasets.config, f"STREAMING_{operation}_RETRY_INTERVAL", 0)


class DataPatience(Patience):
    """Gives up ``seconds`` after the last data, with one line for the user."""

    def give_up(self, what: str, error: BaseException) -> NoReturn:
        """Raise a UserError that names the option."""
        raise UserError(
            f"{what} gave no data for {self.seconds:.0f} s (--data-timeout): {one_line(error, 160)}; when the"
            " connection is back, continue with --resume"
        ) from error
