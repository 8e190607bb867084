"""Processes that end with the one that started them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

CHILD = """
import os, signal, sys, time
from dccd_timm.process import detach, end_with_parent
{call}
print(os.getpid(), os.getpgid(0), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""


@pytest.mark.parametrize("call", ["end_with_parent(signal.SIGTERM)", "detach()"])
def test_a_child_ends_when_its_parent_is_killed(call):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(call=call)], stdout=subprocess.PIPE, text=True
    )
    child, group = map(int, parent.stdout.readline().split())
    process = psutil.Process(child)
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([process], timeout=5)[1]
    assert (group == child) == call.startswith("detach")  # out of the launcher's group


def test_a_detached_worker_does_not_see_a_signal_to_its_group():
    """A launcher stops a group of ranks; their workers must go on until the update is finished."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(call="detach()")],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    child = psutil.Process(int(parent.stdout.readline().split()[0]))
    os.kill(parent.pid, signal.SIGSTOP)  # it cannot end, and so it does not end its child
    os.killpg(parent.pid, signal.SIGUSR1)
    time.sleep(0.2)
    assert child.is_running()
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=5)
