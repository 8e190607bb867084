"""One rank's error ends all ranks within seconds, with the cause on rank 0's screen."""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed as dist

from dccd_timm.errors import UserError, one_line

_logger = logging.getLogger(__name__)

# Seconds between two looks at what other ranks said, and for which a rank waits for its cause to be read.
_LOOK = 0.5
_PATIENCE = 6.0
# What gloo and NCCL say when the other side is gone
_LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "NCCL", "Gloo",
         "gloo", "Timed out waiting", "Socket")  # fmt: skip


@contextlib.contextmanager
def all_together(explain: Callable[[Exception], str | None]) -> Iterator[None]:
    """Run the block on every rank; an error of one ends all.

    ``explain`` makes one line of an error that is the user's or the machine's, and None of a bug, which keeps its
    traceback. A rank that is killed says nothing: the launcher ends the others, and rank 0 says that one was lost.

    Several processes end here, with code 2, once rank 0 has shown the cause.

    Raises:
        UserError: in a single process.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    board = None
    if world > 1:
        try:
            board = _Board(rank, world)
        except RuntimeError as error:
            _logger.warning("ranks cannot tell each other why they end: %s", str(error).splitlines()[0])
    try:
        yield
    except Exception as error:
        line = explain(error)
        if board is None:
            if line is None or isinstance(error, UserError):
                raise
            raise UserError(line) from error
        if line is None and _is_lost(error):
            board.wait_for_cause()
            line = f"another rank was lost ({one_line(error, 150)}); the launcher says how it ended"
            board.leave(line, shown=rank != 0)
        if line is None:  # a bug: everybody should see where
            traceback.print_exception(error)
        board.leave(line or f"{type(error).__name__}: {one_line(error, 200)}")
    finally:
        if board is not None:
            board.close()


def _is_lost(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
    )


class _Board:
    """The launcher's key-value store, with one line on it: why a rank ended. A thread reads it while others compute."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank = rank
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.cause, self.seen = f"dccd_timm/{attempt}/cause", f"dccd_timm/{attempt}/seen"
        self.closed, self.printed = threading.Event(), threading.Lock()
        self.store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, False, timedelta(seconds=30),
            wait_for_workers=False,
        )  # fmt: skip
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.closed.wait(_LOOK):
            try:
                if not self.store.check([self.cause]):
                    continue
                text = self.store.get(self.cause).decode()
            except RuntimeError:  # the launcher is gone, and ends us by itself
                return
            if int(text.split(" ", 1)[0]) == self.rank:
                return
            if self.rank == 0:
                self._show(text)
            else:
                time.sleep(_PATIENCE)  # rank 0 first
            os._exit(2)  # the main thread may sit in a collective that nobody will answer

    def _show(self, text: str) -> None:
        """Print the cause, once."""
        if self.printed.acquire(blocking=False):
            rank, line = text.split(" ", 1)
            print(f"error: {line}" if rank == "0" else f"error: rank {rank}: {line}", file=sys.stderr, flush=True)
            with contextlib.suppress(RuntimeError):
                self.store.set(self.seen, "1")

    def wait_for_cause(self) -> None:
        """Give another rank the time to say why; the thread ends this process if it does."""
        time.sleep(_PATIENCE / 2)

    def leave(self, line: str, shown: bool = False) -> None:
        """Tell all ranks, see that rank 0 has shown it, and end; ``shown`` says that it need not."""
        text = f"{self.rank} {line}"
        with contextlib.suppress(RuntimeError):
            if not shown:
                text = self.store.compare_set(self.cause, "", text).decode()
            if self.rank == 0:
                self._show(text)
            elif not shown:
                self._await_seen(text)
        sys.stdout.flush()
        logging.shutdown()
        os._exit(2)  # a half-formed group aborts in its destructors

    def _await_seen(self, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if self.store.check([self.seen]):
                return
            time.sleep(_LOOK / 5)
        self._show(text)  # rank 0 is gone

    def close(self) -> None:
        """Stop looking."""
        self.closed.set()
        self.thread.join()
