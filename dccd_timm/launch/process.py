"""What ties a process to the one that started it."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal when the parent dies: an orphan would keep running and hold the GPU (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def detach_worker(number: int) -> None:
    """Take loader worker ``number`` out of its rank's process group; a DataLoader's ``worker_init_fn``.

    A launcher signals the whole group when it wants to stop, and a rank cannot finish its update without its workers.
    They still end with their rank, at once.
    """
    os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)
