"""How a program ends, and how its log lines look."""

import io
import logging
import subprocess
import sys

import pytest

from dccd_timm.errors import UserError
from dccd_timm.launch.guard import guarded
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def own_logging():
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def raises(error):
    def program(arguments):
        raise error

    return program


@pytest.mark.parametrize(
    ("rank", "line"), [("0", "error: lower --batch-size\n"), ("3", "rank 3: lower --batch-size\n")]
)
def test_a_users_mistake_is_one_line_and_exit_code_2(rank, line, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended:
        guarded(raises(UserError("lower --batch-size")), [])
    assert ended.value.code == 2 and capsys.readouterr().err == line


def test_a_stop_from_the_keyboard_is_no_traceback(capsys):
    with pytest.raises(SystemExit) as ended:
        guarded(raises(KeyboardInterrupt()), [])
    assert ended.value.code == 130 and capsys.readouterr().err == "stopped\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(raises(ZeroDivisionError()), [])


def test_a_name_that_the_terminal_cannot_show_is_escaped(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    guarded(lambda arguments: print("caf\udce9 \u732b", flush=True), [])
    assert terminal.buffer.getvalue() == b"caf\\udce9 \\u732b\n"


def test_a_log_line_is_its_message_and_a_warning_says_that_it_is_one(capsys):
    def program(arguments):
        logging.getLogger("dccd_timm.x").info("epoch %s", *arguments)
        logging.getLogger("dccd_timm.x").warning("skipped")
        logging.getLogger("timm").info("too much")

    guarded(program, ["1"])
    assert capsys.readouterr().err == "epoch 1\nWARNING: skipped\n"


def test_the_libraries_own_lines_on_retries_are_left_out():
    code = """
from dccd_timm.launch.guard import guarded
def program(arguments):
    import logging, datasets, huggingface_hub
    print([logging.getLogger(n).getEffectiveLevel() for n in ("huggingface_hub", "huggingface_hub.utils._http", "datasets")])
guarded(program, [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[40, 40, 40]\n", done.stderr
