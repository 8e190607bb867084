"""One rank's error ends all ranks within seconds, and rank 0 prints the cause."""

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from dccd_timm.errors import UserError, one_line

_logger = logging.getLogger(__name__)

# Seconds between two looks for another rank's cause, and seconds that a rank waits until its own is printed.
_INTERVAL = 0.5
_PATIENCE = 6.0
# What gloo and NCCL say when the other side is gone
_LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "NCCL", "Gloo",
         "gloo", "Timed out waiting", "Socket")  # fmt: skip


@contextlib.contextmanager
def all_together(
    explain: Callable[[Exception], str | None], clean_up: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Run the block on every rank; an error of one ends all.

    ``explain`` makes one line of an error that is the user's or the machine's, and None of a bug, which keeps its
    traceback. ``clean_up`` is called before a rank ends early. A rank that is killed reports nothing: the launcher ends
    the others, and rank 0 reports one as lost.

    With several processes this ends them, with code 2, once rank 0 has printed the cause.

    Raises:
        UserError: in a single process.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    board = None
    if world > 1:
        try:
            board = _Board(rank, world, clean_up)
        except RuntimeError as error:
            _logger.warning("ranks cannot tell each other why they end: %s", str(error).splitlines()[0])
    try:
        yield
    except Exception as error:
        line = explain(error)
        clean_up()
        if board is None:
            if line is None or line == str(error):
                raise
            raise UserError(line) from error
        if line is None and _is_lost(error) and "timed out" in str(error).lower():
            board.leave(f"the ranks waited longer than --dist-timeout: {board.where_ranks_stand(error)}")
        if line is None and _is_lost(error):
            board.wait_for_cause()
            line = f"another rank was lost ({one_line(error, 150)}); the launcher says how it ended"
            board.leave(line, silent=rank != 0)
        if line is None:  # a bug
            traceback.print_exception(error)
        board.leave(line or f"{type(error).__name__}: {one_line(error, 200)}")
    except BaseException:  # Ctrl-C
        clean_up()
        raise
    finally:
        if board is not None:
            board.close()


def _is_lost(error: Exception) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
    )


def _place(stack: traceback.StackSummary) -> str:
    """The innermost function of ours in a stack, else of anyone's."""
    ours = [frame for frame in stack if "dccd_timm" in frame.filename and frame.filename != __file__]
    frame = (ours or list(stack))[-1]
    return f"in {frame.name} ({Path(frame.filename).name}:{frame.lineno})"


class _Board:
    """The launcher's key-value store with one line in it: why a rank ended. A thread watches it during the training."""

    def __init__(self, rank: int, world: int, clean_up: Callable[[], None]) -> None:
        self.rank, self.world, self.clean_up = rank, world, clean_up
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.cause, self.printed_key = f"dccd_timm/{attempt}/cause", f"dccd_timm/{attempt}/printed"
        self.asked, self.standing = f"dccd_timm/{attempt}/asked", f"dccd_timm/{attempt}/standing"
        self.closed, self.printed = threading.Event(), threading.Lock()
        self.store = dist.TCPStore(
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, False, timedelta(seconds=30),
            wait_for_workers=False,
        )  # fmt: skip
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.closed.wait(_INTERVAL):
            try:
                if self.store.check([self.asked]):
                    stack = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
                    self.store.set(f"{self.standing}/{self.rank}", _place(stack))
                if not self.store.check([self.cause]):
                    continue
                text = self.store.get(self.cause).decode()
            except RuntimeError:  # the launcher is gone, and ends this process itself
                return
            if int(text.split(" ", 1)[0]) == self.rank:
                return
            if self.rank == 0:
                self._print(text)
            else:
                time.sleep(_PATIENCE)  # rank 0 prints first
            self.clean_up()
            os._exit(2)  # the main thread may wait in a collective that will never complete

    def _print(self, text: str) -> None:
        """Print the cause, once."""
        if self.printed.acquire(blocking=False):
            rank, line = text.split(" ", 1)
            print(f"error: {line}" if rank == "0" else f"error: rank {rank}: {line}", file=sys.stderr, flush=True)
            with contextlib.suppress(RuntimeError):
                self.store.set(self.printed_key, "1")

    def where_ranks_stand(self, error: Exception) -> str:
        """Where each rank is: this one by its ``error``, the others as their threads answer within seconds."""
        places = {self.rank: f"waits {_place(traceback.extract_tb(error.__traceback__))}"}
        deadline = time.monotonic() + _PATIENCE / 2
        with contextlib.suppress(RuntimeError):
            self.store.set(self.asked, "1")
            for rank in set(range(self.world)) - {self.rank}:
                key = f"{self.standing}/{rank}"
                while not self.store.check([key]) and time.monotonic() < deadline:
                    time.sleep(_INTERVAL / 5)
                places[rank] = f"is {self.store.get(key).decode()}" if self.store.check([key]) else "does not answer"
        return ", ".join(f"rank {rank} {place}" for rank, place in sorted(places.items()))

    def wait_for_cause(self) -> None:
        """Give another rank time to report why it ended; the thread then ends this process."""
        time.sleep(_PATIENCE / 2)

    def leave(self, line: str, silent: bool = False) -> NoReturn:
        """Report ``line`` to all ranks, wait until rank 0 has printed it, and end this process.

        A ``silent`` rank reports and waits for nothing.
        """
        text = f"{self.rank} {line}"
        with contextlib.suppress(RuntimeError):
            if not silent:
                text = self.store.compare_set(self.cause, "", text).decode()
            if self.rank == 0:
                self._print(text)
            elif not silent:
                self._wait_until_printed(text)
        sys.stdout.flush()
        logging.shutdown()
        os._exit(2)  # a half-formed group aborts in its destructors

    def _wait_until_printed(self, text: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if self.store.check([self.printed_key]):
                return
            time.sleep(_INTERVAL / 5)
        self._print(text)  # rank 0 is gone

    def close(self) -> None:
        """Stop watching."""
        self.closed.set()
        self.thread.join()
