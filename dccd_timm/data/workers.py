"""How loader workers start: forked by a server that has one thread, never by the rank, which has several.

A process that is forked while another of its threads holds a lock, inside CPython or a library, may wait for that lock
for ever. The server is started once in each rank; it has imported what workers need, so that a worker costs a fork. A
program starts it early: as long as the rank has one thread the server is forked off it, with all that is imported.
"""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from multiprocessing.popen_forkserver import Popen
from multiprocessing.process import BaseProcess
from types import ModuleType

from dccd_timm.process import STOP_SIGNALS, detach
from dccd_timm.recipe import Images


class _Worker(ForkServerProcess):
    """A worker that does not import the caller's main module.

    It has nothing to do with what is read, and a script without ``if __name__ == "__main__"`` would train once more in
    each worker.
    """

    @staticmethod
    def _Popen(process: BaseProcess) -> Popen:
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            return ForkServerProcess._Popen(process)
        finally:
            sys.modules["__main__"] = main


class _Context(ForkServerContext):
    Process = _Worker


# Elsewhere torch's default is spawn, which does not fork.
_CONTEXT = _Context() if sys.platform == "linux" else None
# The first one detaches the server.
_PRELOADED = ["dccd_timm.data.worker_server", "dccd_timm.data.build", "dccd_timm.data.sources"]
_ENVIRONMENT = {
    # numpy's BLAS and Arrow's allocator would start threads in the server
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTHONWARNINGS": "ignore:resource_tracker",  # semaphores of a rank that was killed, removed without a page of text
}


def start_server_early(images: Images) -> None:
    """Start the server before anything starts a thread, if the loaders will have workers."""
    if images.workers or images.dataset.startswith("hfids/"):
        if _CONTEXT is not None:
            with _environment(_ENVIRONMENT):
                for name in _modules(images)[1:]:
                    importlib.import_module(name)
        start_server(images)


def start_server(images: Images) -> BaseContext | None:
    """Start the server of loader workers, unless it runs; its multiprocessing context, for a DataLoader."""
    if _CONTEXT is None:
        return None
    forkserver.set_forkserver_preload(_modules(images))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        with _environment(_ENVIRONMENT):
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the line before unblocks two of them
            with _forked_if_single_threaded():
                forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _CONTEXT


def _forget_server() -> None:
    """A forked process has no server: the one that multiprocessing knows is its parent's."""
    forkserver._forkserver._forkserver_pid = None  # type: ignore[attr-defined]


if _CONTEXT is not None:
    os.register_at_fork(after_in_child=_forget_server)


def _modules(images: Images) -> list[str]:
    """What the server imports for workers that read these images."""
    return [*_PRELOADED, *(["datasets"] if images.dataset.startswith(("hfids/", "hfds/")) else [])]


@contextlib.contextmanager
def _forked_if_single_threaded() -> Iterator[None]:
    """Let multiprocessing fork the server off this process in place of a new interpreter, which would import for
    seconds what is imported here already; not where this process has threads."""
    if len(os.listdir("/proc/self/task")) > 1 or _PRELOADED[1] not in sys.modules:
        yield
        return
    spawn, opened = util.spawnv_passfds, set(os.listdir("/proc/self/fd"))
    util.spawnv_passfds = partial(_fork_server, opened)
    try:
        yield
    finally:
        util.spawnv_passfds = spawn


def _fork_server(opened: set[str], executable: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
    """Run a Python program of multiprocessing in a fork, with the ``files`` and those that were ``opened`` before.

    ``arguments`` are those of an interpreter, and end with -c and the program.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for number in set(os.listdir("/proc/self/fd")) - opened - {str(file) for file in files}:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(int(number))
        for stop in STOP_SIGNALS:
            signal.signal(stop, signal.default_int_handler if stop == signal.SIGINT else signal.SIG_DFL)
        exec(arguments[-1], {})  # noqa: S102 - multiprocessing's own program
        code = 0
    finally:
        os._exit(code)


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
    if _CONTEXT is not None and os.getppid() != sys.modules[_PRELOADED[0]].PID:  # it died before the line above
        os._exit(1)
    if first is not None:
        first(number)
