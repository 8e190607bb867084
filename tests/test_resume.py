"""A run that is killed and resumed ends with the very student of a run that nobody killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import safetensors.torch
import torch

from tests.conftest import ROOT, run_program
from tests.test_programs import assert_one_line

UPDATES = 12  # of a run: 3 epochs of 4 updates


def words(small, folders, data, *flags):
    source = ["--dataset", "", "--data-dir", folders, "--val-split", "validation"] if data == "folder" else []
    return [
        *small, *source, "-b", 12, "-j", 2, "--epochs", 3, "--recovery-interval", 1, "--drop", 0.2, "--reprob", 0.5,
        "--mixup", 0.2, "--dccd-view-aug", "near", "--dccd-views", 3, "--model-ema", "--log-interval", 1, *flags,
    ]  # fmt: skip


def student(run):
    return safetensors.torch.load_file(run / "last" / "model.safetensors")


def started(arguments, processes):
    """The program in a session of its own, on as many ranks as asked for."""
    launch = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return subprocess.Popen(
        [sys.executable, *launch, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip


def wait_for_update(run, number, process):
    """Wait until the run has saved its update ``number``."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        states = sorted((run / "state").glob("update-*"))
        if states and int(states[-1].name.removeprefix("update-")) >= number:
            return
        time.sleep(0.02)


def kill_all(process):
    """SIGKILL for the program, its ranks and their workers."""
    everyone = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in everyone:
        one.kill()
    process.communicate()
    psutil.wait_procs(everyone, timeout=10)


@pytest.mark.parametrize(("data", "processes"), [("folder", 1), ("stream", 2)])
def test_killed_and_resumed_it_is_bitwise_the_same_student(data, processes, small, folders, tmp_path):
    flags = ["-b", 12 // processes, "--output", tmp_path / "out"]
    whole = started(words(small, folders, data, *flags, "--experiment", "whole"), processes)
    stderr = whole.communicate(timeout=240)[1]
    assert whole.returncode == 0, stderr
    run = tmp_path / "out" / "cut"
    arguments = words(small, folders, data, *flags, "--experiment", "cut", "--resume", "auto")
    dice = random.Random(f"{data}{processes}")
    for number in sorted(dice.sample(range(1, UPDATES // 2), 2)):  # so early that the kill still meets it running
        process = started(arguments, processes)
        wait_for_update(run, number, process)
        kill_all(process)
    process = started(arguments, processes)
    stderr = process.communicate(timeout=240)[1]
    assert process.returncode == 0, stderr
    assert "going on from" in stderr
    expected, got = student(tmp_path / "out" / "whole"), student(run)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    tables = [(tmp_path / "out" / name / "summary.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert len(tables[0]) == len(tables[1]) == 4
    losses = [[row.split(",")[1:4] for row in table] for table in tables]
    assert losses[0] == losses[1]  # the mean over an epoch that was cut is that of the whole epoch


def test_a_scheduler_that_wants_its_machine_gets_a_saved_state_and_code_75(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 500, "--recovery-interval", 1000)
    process = started(arguments, 1)
    wait_for_update(run, 4, process)
    process.send_signal(signal.SIGUSR1)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 75 and "Traceback" not in stderr
    assert f"saved; go on with --resume {run}" in stderr.splitlines()[-1]
    assert run_program(*arguments, "--epochs", 2, "--resume", run).returncode == 0


def test_a_torn_state_is_recognised_and_the_one_before_is_used(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 1, "--checkpoint-hist", 2)
    assert run_program(*arguments).returncode == 0
    assert len(list((run / "state").glob("update-*"))) == 2
    newest, before, *_ = sorted((run / "state").glob("update-*"), reverse=True)
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with (run / "summary.csv").open("a") as file:  # as if it had been killed between this row and its state
        file.write("1,9,9,9,9,9,9,9,9,9,9\n2,")
    done = run_program(*arguments, "--epochs", 2, "--resume", run)
    assert done.returncode == 0, done.stderr
    assert [row.split(",")[0] for row in (run / "summary.csv").read_text().splitlines()] == ["epoch", "0", "1"]
    assert f"{newest} is torn (model.safetensors is not what was written)" in done.stderr
    assert f"going on from {before}" in done.stderr
    for state in (run / "state").glob("update-*"):
        (state / "sha256.json").write_text("{")
    assert_one_line(run_program(*arguments, "--epochs", 3, "--resume", run), "none of its 2 saved states is whole")


def test_another_number_of_processes_goes_on_with_a_notice(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 1)
    assert run_program(*arguments).returncode == 0
    process = started([*arguments, "-b", 6, "--epochs", 2, "--resume", run], 2)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 0, stderr
    assert "saved by 1 processes and resumed by 2" in stderr


def test_two_runs_cannot_write_to_one_folder(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 500)
    process = started(arguments, 1)
    wait_for_update(run, 1, process)
    try:
        assert_one_line(run_program(*arguments, "--resume", run), "another run writes to")
    finally:
        kill_all(process)
    assert json.loads((run / "state" / max(os.listdir(run / "state")) / "progress.json").read_text())["updates"] >= 1


def test_ranks_do_not_outlive_their_launcher(small, folders, tmp_path):
    process = started(words(small, folders, "stream", "-b", 6, "--epochs", 500), 2)
    wait_for_update(tmp_path / "out" / "run", 1, process)
    everyone = psutil.Process(process.pid).children(recursive=True)
    assert len(everyone) >= 2
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(everyone, timeout=30)[1]
