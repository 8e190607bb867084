"""benchmarks/startup.py: it measures up to the first line, and ends with code 1 when a program is late."""

import sys

import pytest

from benchmarks import startup


def test_the_first_line_is_timed_and_the_program_is_not_waited_for():
    seconds, processor = startup.first_line(
        ["-c", "import time; time.sleep(0.5); print('x', flush=True); time.sleep(60)"]
    )
    assert 0.5 < seconds < 30 and 0 < processor < seconds


@pytest.mark.parametrize(("limit", "code"), [(60.0, None), (0.01, "too late: x")])
def test_a_late_program_ends_it_with_an_error(limit, code, monkeypatch, capsys):
    monkeypatch.setattr(startup, "COMMANDS", {"x": (["-m", "dccd_timm", "--version"], limit)})
    monkeypatch.setattr(sys, "argv", ["startup.py", "--rounds", "1"])
    if code is None:
        startup.main()
    else:
        with pytest.raises(SystemExit, match=code):
            startup.main()
    assert capsys.readouterr().out.splitlines()[1].startswith("x ")
