"""A process with threads is never forked: its child may wait for ever for a lock that one of them held."""

import pytest

from tests.conftest import ROOT, run_program
from tests.processes.test_resume import ended, started


def threads_at_forks(file):
    """How often processes were forked, and the lines of those that had several threads then."""
    lines = file.read_text().splitlines()
    file.unlink()
    return len(lines), [line for line in lines if not line.startswith("1 ")]


@pytest.mark.parametrize(("source", "processes"), [("folder", 1), ("stream", 2)])
def test_training_report_and_resume(source, processes, small, folders, tmp_path):
    if source == "folder":
        small += ["--dataset", "", "--data-dir", folders, "--val-split", "validation"]
    arguments = [*small, "-j", 2, "-b", 16 // processes, "--epochs", 1]
    for more in ([], ["--epochs", 2, "--resume", tmp_path / "out" / "run"]):
        code, stderr = ended(started([*arguments, *more], processes, FORKS=str(tmp_path / "forks")))
        assert code == 0, stderr
        count, threaded = threads_at_forks(tmp_path / "forks")
        assert count >= 3 * processes and not threaded  # workers of training, validation and report


def test_validation(folders, teacher, tmp_path):
    data = ["--data-dir", folders, "--split", "validation"]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'fakes' / 'saboteur'}", "FORKS": str(tmp_path / "forks")}
    done = run_program("--model", f"local-dir:{teacher}", *data, "-j", 2, program="validate.py", env=env)
    assert done.returncode == 0, done.stderr
    count, threaded = threads_at_forks(tmp_path / "forks")
    assert count == 3 and not threaded  # the server and two workers
