"""The server of loader workers survives signals to its rank's group and ends with its rank."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

RANK = """
import time
from multiprocessing import forkserver
from dccd_timm.data import workers
from dccd_timm.recipe import load_recipe

workers.START(load_recipe(["-j", "2"]))
print(forkserver._forkserver._forkserver_pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("start", ["start_server", "start_server_early"])
def test_it_is_out_of_the_group_from_its_first_moment_and_ends_with_its_rank(start):
    """A server that is started as an interpreter of its own, and one that is forked off the rank."""
    rank = subprocess.Popen(
        [sys.executable, "-c", RANK.replace("START", start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server = psutil.Process(int(rank.stdout.readline()))
    rank.send_signal(signal.SIGSTOP)  # it must not end at the signals to its group
    while psutil.Process(rank.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        os.killpg(rank.pid, number)
    deadline = time.monotonic() + 60
    while os.getpgid(server.pid) == rank.pid and time.monotonic() < deadline:
        assert server.status() != psutil.STATUS_ZOMBIE
        time.sleep(0.01)
    assert os.getpgid(server.pid) == server.pid and server.status() != psutil.STATUS_ZOMBIE
    assert ("multiprocessing.forkserver" in " ".join(server.cmdline())) == (start == "start_server")
    rank.kill()
    stderr = rank.communicate(timeout=10)[1]
    assert not psutil.wait_procs([server], timeout=5)[1]
    assert not stderr
