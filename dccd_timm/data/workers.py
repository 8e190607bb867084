"""How loader workers start: forked by a server that has one thread, never by the rank, which has several.

A process that is forked while another of its threads holds a lock, inside CPython or a library, may wait for that lock
for ever. The server is started once in each rank; it has imported what workers need, so that a worker costs a fork.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import forkserver, resource_tracker

from dccd_timm.process import STOP_SIGNALS, detach
from dccd_timm.recipe import Images

# Elsewhere torch's default is spawn, which does not fork.
_CONTEXT = "forkserver" if sys.platform == "linux" else None
# The first one detaches the server.
_PRELOADED = ["dccd_timm.data.worker_server", "dccd_timm.data.build", "dccd_timm.data.sources"]
_ENVIRONMENT = {
    # numpy's BLAS and Arrow's allocator would start threads in the server
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTHONWARNINGS": "ignore:resource_tracker",  # semaphores of a rank that was killed, removed without a page of text
}


def start_server_early(images: Images) -> None:
    """Start the server before the loaders are built, if they will have workers: it imports while its rank does."""
    if images.workers or images.dataset.startswith("hfids/"):
        start_server(images)


def start_server(images: Images) -> str | None:
    """Start the server of loader workers, unless it runs; the name of its multiprocessing context, for a DataLoader."""
    if _CONTEXT is None:
        return None
    reads_datasets = images.dataset.startswith(("hfids/", "hfds/"))
    forkserver.set_forkserver_preload([*_PRELOADED, *(["datasets"] if reads_datasets else [])])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with _environment(_ENVIRONMENT):
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the line before unblocks two of them
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _CONTEXT


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def worker_start(first: Callable[[int], None] | None) -> Callable[[int], None]:
    """A DataLoader's ``worker_init_fn``: the worker ends with its rank, and runs ``first`` with its number."""
    return partial(_start_worker, first)


def _start_worker(first: Callable[[int], None] | None, number: int) -> None:
    detach()
    rank = multiprocessing.parent_process()
    if rank is not None and not rank.is_alive():  # it died, and the server with it, before the line above
        os._exit(1)
    if first is not None:
        first(number)
