"""What ties a process to the one that started it."""

import ctypes
import os
import signal
import sys

# What launchers, schedulers and users send to a whole process group when they want it to stop.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal when the parent dies: an orphan would keep running and hold the GPU (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def detach() -> None:
    """Take this process out of its parent's process group; it still ends with its parent, at once.

    A launcher signals the whole group when it wants to stop, and a rank cannot finish its update without its workers.
    """
    end_with_parent(signal.SIGKILL)
    os.setpgid(0, 0)
