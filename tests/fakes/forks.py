"""Programs without the seconds that an interpreter needs for torch, timm and datasets: forked off one that has them.

A program runs as the interpreter would run it: its own arguments, folder, output, exit code, and no other thread.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As in dccd_timm/data/workers.py: these libraries would start threads, and a process with threads is not forked.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
# Variables that an interpreter and its libraries read when they start begin with these.
AT_START = ("HF_", "PYTHON", "OMP_", "TORCH", "COLUMNS", "MPL")
SETTINGS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


class Forks:
    """A process that forks programs, one or several ranks at a time."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.forks"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, **SETTINGS, **ONE_THREAD},
        )  # fmt: skip

    def run(self, arguments, processes, cwd, env, timeout):
        """``python ARGUMENTS`` on so many ranks: a subprocess.CompletedProcess, with what all of them printed."""
        with tempfile.TemporaryDirectory() as out:
            job = {"arguments": arguments, "cwd": str(cwd), "out": out, "timeout": timeout}
            environments = [{**os.environ, **SETTINGS, **env, **rank} for rank in ranks(processes)]
            self.process.stdin.write(json.dumps({**job, "environments": environments}) + "\n")
            self.process.stdin.flush()
            codes = json.loads(self.process.stdout.readline())
            said = [
                "".join((Path(out) / f"{name}{rank}").read_text() for rank in range(processes))
                for name in ("out", "err")
            ]
        if codes is None:
            raise subprocess.TimeoutExpired(arguments, timeout, *said)
        return subprocess.CompletedProcess(arguments, next(filter(None, codes), 0), *said)

    def stop(self):
        self.process.kill()  # it has nothing left to do
        self.process.communicate()


def ranks(processes):
    """The variables that a launcher sets for each rank."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    return [{k: str(v) for k, v in {**common, "RANK": n, "LOCAL_RANK": n}.items()} for n in range(processes)]


def started(job, number):
    """Fork a rank; in the parent its process, in the child None, once it has its folder, output and variables."""
    if process := os.fork():
        return process
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(f"{job['out']}/{name}{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    os.environ.clear()
    os.environ.update(job["environments"][number])
    os.chdir(job["cwd"])
    return None


def waited(processes, timeout):
    """The exit codes of all, or None when they did not end in time, and wrote their stacks; one that fails ends the
    others."""

    def end(number):
        for process in set(processes) - set(codes):
            os.kill(process, number)

    codes = {}
    signal.signal(signal.SIGALRM, lambda *_: end(signal.SIGABRT))
    signal.alarm(timeout)
    while len(codes) < len(processes):
        process, status = os.wait()
        codes[process] = os.waitstatus_to_exitcode(status)
        if codes[process]:
            end(signal.SIGKILL)
    in_time = signal.alarm(0) > 0
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return [codes[process] for process in processes] if in_time else None


def serve():
    """Fork what is asked for, a line a job; returns a program's arguments in a child, None at the end."""
    import faulthandler

    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import timm  # noqa: F401

    import dccd_timm.data.sources
    import dccd_timm.hub.publisher
    import dccd_timm.run.train
    import dccd_timm.run.validate  # noqa: F401

    faulthandler.enable()
    for line in sys.stdin:
        assert len(os.listdir("/proc/self/task")) == 1
        job, processes = json.loads(line), []
        for number in range(len(job["environments"])):
            process = started(job, number)
            if process is None:
                return job["arguments"]
            processes.append(process)
        print(json.dumps(waited(processes, job["timeout"])), flush=True)
    return None


def run(arguments):
    """What the interpreter does with ``-m NAME``, ``-c CODE`` or a file, and arguments."""
    which, *rest = arguments
    if which == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif which == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = arguments, str(Path(which).absolute().parent)
        runpy.run_path(which, run_name="__main__")


if __name__ == "__main__" and (words := serve()) is not None:
    run(words)
