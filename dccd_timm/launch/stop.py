"""Signals from a scheduler or a user to stop: finish the update, save, exit with a code."""

import logging
import shlex
import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

_logger = logging.getLogger(__name__)

# EX_TEMPFAIL of sysexits.h: schedulers can requeue by it.
REQUEUE = 75


class StopSignals:
    """Listens for SIGTERM, SIGUSR1 and Ctrl-C; the second one ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        self.previous = {n: signal.signal(n, self._note) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.close()

    def came(self) -> bool:
        """Whether a signal came."""
        return self.number != 0

    def leave(self, folder: Path) -> NoReturn:
        """End the process, after the state has been saved.

        Raises:
            SystemExit: with code 75, for schedulers that requeue by code; 130 after Ctrl-C.
        """
        name = signal.Signals(self.number).name if self.number else "another rank was told to stop"
        _logger.warning("%s: saved; resume with --resume %s", name, shlex.quote(str(folder)))
        raise SystemExit(130 if self.number == signal.SIGINT else REQUEUE)

    def close(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
