"""The programs start at once: what takes seconds to import is imported when the flags are right, and not for --help."""

import importlib
import logging
import os
import re
import runpy
import subprocess
import sys
import tomllib
from functools import partial

import pytest

import dccd_timm
from dccd_timm import cli
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import ROOT

SLOW = {"torch", "torchvision", "timm", "datasets", "accelerate", "numpy", "huggingface_hub", "matplotlib"}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PROGRAMS = {
    "train.py": ["train.py", "--help"],
    "validate.py": ["validate.py", "--help-all"],
    "dccd-timm": ["-m", "dccd_timm", "--help"],
    "dccd-timm train": ["-m", "dccd_timm", "train", "--help"],
    "dccd-timm pull": ["-m", "dccd_timm", "pull", "--help"],
    "dccd-push": ["-c", "import sys; sys.argv[1:] = ['--help']; from dccd_timm.__main__ import push; push()"],
    "dccd-report": ["-m", "dccd_timm.report", "--help"],
    "a mistake": ["train.py", "--lrr", "0.1"],
}


@pytest.fixture(autouse=True)
def own_logging():
    """A program that runs in this process leaves its log behind, which writes to a stream that is closed."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def imported_by(*words):
    """Top-level modules that a program has imported when it ends, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "dccd_timm" in imported
    return imported, done.stdout + done.stderr


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_starts_without_the_large_libraries(words):
    imported, text = imported_by(*words)
    assert "usage: dccd-timm" in text or "did you mean --lr" in text
    assert not imported & SLOW


@pytest.mark.parametrize("name", ["train_main", "validate_main"])
def test_the_first_line_comes_before_the_large_libraries(name):
    code = f"""
import sys
import tomllib
from functools import partial
from dccd_timm import cli
def stop(settings):
    sys.exit(0)
cli.start_server_early = stop  # what is called after the first line
cli.{name}(['--model', 'resnet18', '--data-dir', '.'])
"""
    imported, text = imported_by("-c", code)
    assert f"dccd-timm {dccd_timm.__version__}: loading PyTorch and timm" in text
    assert not imported & SLOW


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.py", "--data-dir", "/nowhere"], "data folder /nowhere does not exist"),
        (
            ["train.py", "--data-dir", ".", "--kd-model-name", "local-dir:no"],
            "teacher (--kd-model-name) local-dir:no: ",
        ),
        (["validate.py", "local-dir:no", "--data-dir", "."], "model local-dir:no: no does not exist"),
    ],
)
def test_a_folder_that_is_not_there_is_said_before_the_large_libraries(words, line):
    imported, text = imported_by(*words)
    assert f"error: {line}" in text and not imported & SLOW


@pytest.mark.parametrize("script", ["train.py", "validate.py", *SCRIPTS])
def test_ctrl_c_while_a_program_imports_is_no_traceback(script, monkeypatch):
    class Interrupted:
        def find_spec(self, name, *_):
            if name == "dccd_timm.cli":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "dccd_timm.cli")
    monkeypatch.delattr(dccd_timm, "cli")
    start = partial(runpy.run_path, str(ROOT / script), run_name="__main__")
    if script in SCRIPTS:  # what an installed command does
        module, name = SCRIPTS[script].split(":")
        start = getattr(importlib.import_module(module), name)
    with pytest.raises(SystemExit, match="^130$"):
        start()


def test_a_program_that_is_not_there_is_one_line(capsys):
    for words, hint in (
        (["trian"], "did you mean train?"),
        (["fly"], "there are train, plan, validate, push, pull, report, cache"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        assert end.value.code == 2
        assert capsys.readouterr().err == f"error: dccd-timm has no program {words[0]}; {hint}\n"


def test_what_cannot_be_pushed_is_one_line_before_the_hub_is_asked(tmp_path, capsys):
    for words, line in (
        (["owner/student", str(tmp_path)], f"the run's folder comes first: dccd-timm push {tmp_path} owner/student"),
        ([str(tmp_path), "owner/student"], f"nothing to push in {tmp_path}: it has no best/model.safetensors"),
        ([str(tmp_path / "none"), "owner/student"], f"nothing to push in {tmp_path / 'none'}: it has no best/"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.push_main(words)
        assert end.value.code == 2 and f"error: {line}" in capsys.readouterr().err


def test_dccd_timm_alone_says_what_there_is(capsys):
    cli.main([])
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in ("train", "plan", "validate", "push", "pull", "report"))


def test_the_public_names_are_there_when_asked_for():
    assert set(dccd_timm.__all__) <= set(dir(dccd_timm))
    for name in dccd_timm.__all__:
        assert getattr(dccd_timm, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'DCCDTaks'"):
        _ = dccd_timm.DCCDTaks


def test_every_console_command_is_a_program_of_the_package(monkeypatch, capsys):
    assert set(SCRIPTS) == {"dccd-timm", "dccd-train", "dccd-validate", "dccd-push", "dccd-report"}
    monkeypatch.setattr(sys, "argv", ["dccd", "--version"])
    for place in SCRIPTS.values():
        module, name = place.split(":")
        with pytest.raises(SystemExit) as end:
            getattr(importlib.import_module(module), name)()
        assert end.value.code == 0 and capsys.readouterr().out == f"dccd-timm {dccd_timm.__version__}\n"


def test_a_teacher_whose_answers_are_kept_need_not_be_there(tmp_path):
    words = ["--data-dir", str(tmp_path), "--kd-model-name", "local-dir:/nowhere", "--kd-cache", str(tmp_path)]
    recipe = load_recipe(words)
    with pytest.raises(UserError, match="/nowhere does not exist"):
        cli._check_folders(recipe)
    (tmp_path / "answers.json").touch()
    cli._check_folders(recipe)
