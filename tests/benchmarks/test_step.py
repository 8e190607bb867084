"""benchmarks/step.py --methods: every method of the comparison makes a step beside two-view KD, by train.py's own task."""

import re
import sys

import pytest

from benchmarks import step
from benchmarks.compare import ALL, CONTROL

TINY = "--student test_resnet --teacher test_efficientnet --size 64 --images 2 --classes 5 --device cpu"


def rows(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["step.py", *TINY.split(), *words])
    step.main()
    return re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", capsys.readouterr().out, re.MULTILINE)


def test_every_method_has_its_cost_beside_two_view_kd(monkeypatch, capsys):
    shown = {
        name: list(map(float, numbers))
        for name, *numbers in rows(["--methods", "all", "--rounds", "2"], monkeypatch, capsys)
    }
    assert list(shown) == list(ALL) and shown[CONTROL] == [1, 1, 1]
    assert all(0 < low <= middle <= high for middle, low, high in shown.values())


def test_a_method_by_name_is_timed_beside_two_view_kd(monkeypatch, capsys):
    assert [row[0] for row in rows(["--methods", "at", "DCCD", "--rounds", "1"], monkeypatch, capsys)] == [
        CONTROL,
        "at",
        "DCCD",
    ]
    for wrong in (["--methods", "at", "--views", "3"], ["--methods", "at", "--profile"]):
        with pytest.raises(SystemExit, match="^2$"):
            rows(wrong, monkeypatch, capsys)


def test_dccd_is_timed_beside_the_tasks_of_timm(monkeypatch, capsys):
    monkeypatch.setattr(step, "measure_memory", lambda args: dict.fromkeys(step.TASKS, 1.0))  # 4 processes
    monkeypatch.setattr(sys, "argv", ["step.py", *TINY.split(), "--rounds", "1"])
    step.main()
    assert re.findall(r"^\| ([\w ,]+) \| \d", capsys.readouterr().out, re.MULTILINE) == list(step.TASKS)
