"""A run that is killed and resumed ends with the very student of a run that nobody killed."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT, run_program, run_python, write_parquet
from tests.programs.test_programs import assert_one_line


def words(small, folders, data, *flags):
    source = ["--dataset", "", "--data-dir", folders, "--val-split", "validation"] if data == "folder" else []
    return [
        *small, *source, "-b", 12, "-j", 2, "--epochs", 3, "--recovery-interval", 1, "--drop", 0.2, "--reprob", 0.5,
        "--mixup", 0.2, "--dccd-view-aug", "near", "--dccd-views", 3, "--model-ema", "--log-interval", 1, *flags,
    ]  # fmt: skip


def student(run):
    return safetensors.torch.load_file(run / "last" / "model.safetensors")


def assert_same_student(first, second):
    """Bit by bit."""
    expected, got = student(first), student(second)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def started(arguments, processes=1, launch=(), **env):
    """The program in a session of its own, on as many ranks as asked for."""
    if processes > 1 or launch:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *launch]
    path = f"{ROOT}{os.pathsep}{Path(__file__).parents[1] / 'fakes' / 'saboteur'}"
    return subprocess.Popen(
        [sys.executable, *launch, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1", **env},
    )  # fmt: skip


def ended(process, timeout=240):
    """Exit code and stderr of a program; nobody of its ranks outlives it for long."""
    everyone = psutil.Process(process.pid).children(recursive=True)
    try:
        stderr = process.communicate(timeout=timeout)[1]
    except subprocess.TimeoutExpired:
        for one in psutil.process_iter():  # where each of them hangs: faulthandler writes it
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(one.pid) == process.pid:
                    one.send_signal(signal.SIGABRT)
        pytest.fail(f"not ended after {timeout} s:\n{process.communicate(timeout=30)[1]}")
    everyone = psutil.wait_procs(everyone, timeout=30)[1]
    assert not everyone
    return process.returncode, stderr


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


CUTS = {
    ("folder", 1): ["training_step:SIGUSR1:2", "save_state:SIGKILL:2", "evaluate:SIGTERM:1", "save_state:FULL:1", "evaluate:SIGKILL:1"],
    ("stream", 2): ["training_step:SIGKILL:3:1", "evaluate:SIGTERM:1", "save_state:SIGKILL:2"],
}  # fmt: skip


@pytest.mark.parametrize(("data", "processes"), CUTS)
def test_cut_again_and_again_it_is_bitwise_the_same_student(data, processes, small, folders, tmp_path):
    flags = ["-b", 12 // processes, "--output", tmp_path / "out"]
    whole = run_python([ROOT / "train.py", *words(small, folders, data, *flags, "--experiment", "whole")], processes)
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "out" / "cut"
    arguments = words(small, folders, data, *flags, "--experiment", "cut", "--resume", "auto")
    for cut in CUTS[data, processes]:
        function, name, count, *rank = cut.split(":")
        sabotage = f"{function}:{name}:{count}:{rank[0] if rank else 0}"
        code, stderr = ended(started(arguments, processes, SABOTAGE=sabotage))
        assert code != 0, f"{cut} never came"
        if name in ("SIGTERM", "SIGUSR1") and processes == 1:
            assert code == 75 and "Traceback" not in stderr
            assert f"{name}: saved; resume with --resume {run}" in stderr.splitlines()[-1]
        if name == "FULL":
            assert_one_line(SimpleNamespace(returncode=code, stderr=stderr), "cannot be written", f"--resume {run}")
        if rank:
            assert stderr.count("error: another rank was lost") == 1
    code, stderr = ended(started(arguments, processes))
    assert code == 0, stderr
    assert "resuming from" in stderr
    assert_same_student(tmp_path / "out" / "whole", run)
    assert not list(run.rglob(".*"))  # nothing half written is left
    tables = [(tmp_path / "out" / name / "summary.csv").read_text().splitlines() for name in ("whole", "cut")]
    assert len(tables[0]) == len(tables[1]) == 4
    losses = [[row.split(",")[1:4] for row in table] for table in tables]
    assert losses[0] == losses[1]  # the mean over an epoch that was cut is that of the whole epoch
    if processes > 1:  # a launcher that restarts its ranks: no flag names the folder
        arguments = words(small, folders, data, *flags, "--experiment", "restarted")
        code, stderr = ended(
            started(arguments, processes, ["--max-restarts", "1"], SABOTAGE="training_step:SIGKILL:6:1")
        )
        assert code == 0 and "resuming from" in stderr, stderr
        assert sorted(os.listdir(tmp_path / "out")) == ["cut", "restarted", "whole"]
        assert_same_student(tmp_path / "out" / "whole", tmp_path / "out" / "restarted")


class Payload:
    """What unpickles as a program."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def assert_a_planted_pickle_runs_nothing(run, arguments, target):
    """A state of someone else's, with right checksums: one line, and nothing is executed."""
    newest = max((run / "state").glob("update-*"))
    sums = json.loads((newest / "sha256.json").read_text())
    for name in ("optimizer.bin", "random_states_0.pkl"):
        good = (newest / name).read_bytes()
        torch.save({"state": Payload(target)}, newest / name)
        planted = hashlib.sha256((newest / name).read_bytes()).hexdigest()
        (newest / "sha256.json").write_text(json.dumps(sums | {name: planted}))
        done = run_program(*arguments, "--epochs", 3, "--resume", run)
        assert_one_line(done, "holds more than weights and numbers")
        assert not target.exists()
        (newest / name).write_bytes(good)


def test_a_torn_state_is_recognised_and_the_one_before_is_used(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 1, "--checkpoint-hist", 2, "--log-with", "tensorboard")
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
    assert f"{newest} is damaged (model.safetensors is not what was written)" in done.stderr
    assert f"resuming from {before}" in done.stderr
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    losses = [event for event in curves.Scalars("contrast_loss") if event.value > 0]
    assert {event.step for event in losses} == set(range(1, 9))  # both parts of the run, in one curve
    assert {"eval_top1", "train_difference_loss", "lr", "views_per_second"} <= set(curves.Tags()["scalars"])
    assert_a_planted_pickle_runs_nothing(run, arguments, tmp_path / "owned")
    for state in (run / "state").glob("update-*"):
        (state / "sha256.json").write_text("{")
    assert_one_line(run_program(*arguments, "--epochs", 3, "--resume", run), "none of its 2 saved states is whole")


def test_another_number_of_processes_continues_with_a_warning(small, folders, tmp_path):
    run = tmp_path / "out" / "run"
    arguments = words(small, folders, "stream", "--epochs", 1)
    assert run_program(*arguments).returncode == 0
    done = run_python([ROOT / "train.py", *arguments, "-b", 6, "--epochs", 2, "--resume", run], 2)
    assert done.returncode == 0, done.stderr
    assert "saved by 1 processes and resumed by 2" in done.stderr


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


def test_loader_workers_die_with_their_rank(small, folders, tmp_path):
    process = started(words(small, folders, "stream", "-b", 6, "--epochs", 500))
    wait_for_update(tmp_path / "out" / "run", 1, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.wait()
    assert not psutil.wait_procs(workers, timeout=2)[1]  # torch's own watchdog looks every 5 seconds
    process.communicate()


def test_one_ranks_error_ends_all_with_its_cause_in_one_line(small, tmp_path):
    data = write_parquet(tmp_path / "data", spoil=(3,))  # one of 48 images: one rank meets it
    began = time.monotonic()
    process = started([*small, "--dataset", f"hfids/{data}", "-b", 8, "-j", 1, "--data-errors", "raise"], 2)
    code, stderr = ended(process)
    assert code != 0 and time.monotonic() - began < 60
    lines = [line for line in stderr.splitlines() if line.startswith(("error: ", "rank "))]
    assert len(lines) == 1 and "3.png" in lines[0], stderr
    assert "RuntimeError" not in stderr
