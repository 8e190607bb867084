"""Loader workers are forked by a server with one thread, whose threads in the rank do not matter, and end with it."""

import os
import subprocess
import sys
import threading

import psutil
import pytest

from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.data.workers import start_server, start_server_early
from dccd_timm.recipe import load_recipe
from tests.conftest import ROOT
from tests.data.loaders import CONFIG, CPU, opened, recipe_for


def describe(queue):
    server = os.getppid()
    queue.put((os.getpid(), server, len(os.listdir(f"/proc/{server}/task")), "timm.data" in sys.modules))


def test_a_worker_comes_from_a_server_with_one_thread_that_has_imported_what_it_needs():
    context = start_server(load_recipe(["--dataset", "hfids/x"]))
    queue = context.SimpleQueue()
    process = context.Process(target=describe, args=(queue,))
    process.start()
    worker, server, threads, imported = queue.get()
    process.join()
    assert server not in (os.getpid(), worker) and threads == 1 and imported


@pytest.mark.parametrize("flags", [["-j", "1"], ["-j", "0", "--dataset", "hfids/x"], ["-j", "0"]])
def test_it_starts_early_only_where_the_loaders_will_have_workers(flags, monkeypatch):
    started = []
    monkeypatch.setattr("dccd_timm.data.workers.start_server", started.append)
    start_server_early(load_recipe(flags))
    assert bool(started) == (flags != ["-j", "0"])


@pytest.mark.parametrize("kind", ["stream", "map"])
def test_no_loader_forks_this_process(kind, parquet, folders, monkeypatch):
    def fork():
        raise AssertionError(f"a process with {threading.active_count()} threads was forked")

    recipe = recipe_for(kind, parquet, folders, "-j", 2)
    split = "test" if kind == "stream" else "validation"
    training = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    evaluation = build_eval_loader(recipe, opened(recipe, split, False), CONFIG, 3, Rank(CPU))
    monkeypatch.setattr(os, "fork", fork)
    assert training.peek().target.tolist()
    assert sum(len(batch.target) for batch in evaluation) == 24


LOADER = """
import sys
from dccd_timm.data.build import Rank, build_train_loader
from tests.conftest import ROOT
from tests.data.loaders import CONFIG, CPU, opened, recipe_for

recipe = recipe_for("map", None, sys.argv[1], "-j", 2)
loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
loader.peek()
print("ready", flush=True)
sys.stdin.read()
"""


def test_workers_end_with_a_rank_that_is_killed(folders, tmp_path):
    """Those that wait, and one that cannot run and so cannot look for its rank. The script has no
    ``if __name__ == "__main__"``, as many have: its workers must not run it."""
    script = tmp_path / "rank.py"
    script.write_text(LOADER)
    rank = subprocess.Popen(
        [sys.executable, str(script), str(folders)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert rank.stdout.readline() == "ready\n", rank.stderr.read()
    everyone = psutil.Process(rank.pid).children(recursive=True)
    workers = [one for one in everyone if one.ppid() != rank.pid]
    assert len(workers) == 2
    workers[0].suspend()
    rank.kill()
    assert not psutil.wait_procs(everyone, timeout=5)[1]
    assert not rank.stderr.read()  # nothing about semaphores


def test_a_worker_ends_whose_server_died_before_it_could_ask_for_a_signal():
    code = "from dccd_timm.data import worker_server, workers; workers.worker_start(None)(0); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
