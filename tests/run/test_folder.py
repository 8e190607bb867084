"""A run's folder: its name, its lock, what a killed run leaves in it."""

import os
import subprocess
import sys

import pytest
import yaml
from accelerate import Accelerator

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.run.folder import FolderLock, choose_folder, clean_up, write_settings


@pytest.fixture
def accelerator(fresh_accelerator, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    return Accelerator(cpu=True)


def choose(tmp_path, accelerator, *flags):
    return choose_folder(load_recipe(["--output", str(tmp_path), *map(str, flags)]), accelerator)


def test_a_new_run_has_the_names_of_its_networks(tmp_path, accelerator):
    folder = choose(
        tmp_path, accelerator, "--model", "resnet18", "--kd-model-name", "hf-hub:timm/resnet50.a1_in1k@main"
    )
    assert folder.parent == tmp_path and folder.name.endswith("-resnet18-resnet50.a1_in1k_main")
    assert not folder.exists()  # it is made once all is well


def test_a_name_that_is_taken_gets_a_number(tmp_path, accelerator):
    for name in ("run", "run-1"):
        assert choose(tmp_path, accelerator, "--experiment", "run").name == name
        (tmp_path / name).mkdir()
    assert choose(tmp_path, accelerator, "--experiment", "run", "--resume", "auto").name == "run"


def test_a_resume_needs_a_state(tmp_path, accelerator):
    (tmp_path / "old" / "control" / "state").mkdir(parents=True)  # stopped in its control
    assert choose(tmp_path, accelerator, "--resume", tmp_path / "old") == tmp_path / "old"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nothing to resume in .*empty: it has no state/"):
        choose(tmp_path, accelerator, "--resume", tmp_path / "empty")


def test_an_output_that_is_a_file_is_refused(tmp_path, accelerator):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is no writable folder"):
        choose(tmp_path / "file", accelerator)


def test_a_restarted_launcher_finds_its_folder(tmp_path, accelerator, monkeypatch):
    FolderLock(tmp_path / "run", accelerator).acquire()  # and never released: it was killed
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".lock").write_text("another launcher")
    assert choose(tmp_path, accelerator, "--experiment", "run").name == "run-1"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert choose(tmp_path, accelerator, "--experiment", "run").name == "run"


LOCK = """
import sys
from accelerate import Accelerator
from pathlib import Path
from dccd_timm.run.folder import FolderLock
FolderLock(Path(sys.argv[1]), Accelerator(cpu=True)).acquire()
"""


@pytest.mark.slow
def test_another_process_cannot_lock_it_until_it_is_released(tmp_path, accelerator):
    def attempt():
        done = subprocess.run([sys.executable, "-c", LOCK, tmp_path / "run"], capture_output=True, text=True)
        return done.stderr.strip().splitlines()[-1:] if done.returncode else "locked"

    lock = FolderLock(tmp_path / "run", accelerator)
    lock.acquire_existing()
    assert not (tmp_path / "run").exists()
    lock.acquire()
    lock.acquire()  # nothing more
    assert "another run writes to" in attempt()[0]
    lock.release()
    assert os.listdir(tmp_path / "run") == []
    assert attempt() == "locked"


def test_what_a_killed_run_left_half_written_goes_and_what_it_was_replacing_stays(tmp_path):
    for name in (
        "state/.update-000000002.new",
        ".best.old",
        ".last.new",
        "last",
        ".last.old",
        "state/update-000000001",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "origin").write_text(name)
    (tmp_path / ".args.yaml.new").write_text("half")
    clean_up(tmp_path)
    left = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        "best/origin": ".best.old", "last/origin": "last", "state/update-000000001/origin": "state/update-000000001",
    }  # fmt: skip


def test_the_settings_load_as_a_recipe(tmp_path, monkeypatch):
    recipe = load_recipe(
        [
            "--model",
            "resnet18",
            "--lr",
            "0.3",
            "--decay-milestones",
            "1",
            "2",
            "--resume",
            "auto",
            "--experiment",
            "run",
        ]
    )
    write_settings(tmp_path, recipe)
    written = yaml.safe_load((tmp_path / "args.yaml").read_text())
    assert written["resume"] is None and set(written["versions"]) >= {"timm", "torch", "dccd-timm"}
    loaded = load_recipe(["-c", str(tmp_path / "args.yaml")])
    assert (loaded.model, loaded.lr, loaded.decay_milestones) == ("resnet18", 0.3, (1, 2))


def test_a_folder_that_safetensors_cannot_write_to_is_refused(tmp_path, accelerator):
    with pytest.raises(UserError, match="no UTF-8"):
        choose(tmp_path, accelerator, "--experiment", os.fsdecode(b"caf\xe9"))
