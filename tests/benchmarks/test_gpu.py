"""benchmarks/gpu.py on the CPU: each part gives its rows, and one that fails, hangs or dies is a line in the report."""

import json
import os
import sys
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_parts import TINY, Report
from tests.conftest import ROOT, run_python

# What each part shows in its table on the CPU
COLUMNS = {
    "steps": {"precision", "task", "views/s", "time of DCCD / its"},
    "terms": {"step", "ms", "of the whole"},
    "share": {"matrix product, TFLOP/s", "step, TFLOP/s", "share", "step, GFLOP"},
    "memory": {"precision", "planned, MiB"},
    "waiting": {"precision", "waits a step", "ms a step", "launched after", "where"},
    "numbers": {"precision", "loss", "task_loss", "kd_loss", "contrast_loss", "difference_loss", "gradient"},
    "scaler": set(),
    "loader": {"pinned", "side stream", "loader alone", "step alone", "both", "of the slower"},
    "resume": {"precision", "tensors", "that differ", "seconds"},
    "compiled": {"precision", "task", "views/s", "time of DCCD / its"},
}


def test_every_part_runs_where_there_is_no_gpu(tmp_path):
    assert list(COLUMNS) == list(gpu.PARTS)
    done = run_python([ROOT / "benchmarks" / "gpu.py", "--tiny", "--output", tmp_path])
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    report = (tmp_path / "report.md").read_text()
    assert done.stdout.strip() == report.strip() and "FAILED" not in report
    for name, found in parts.items():
        assert all(set(row) == COLUMNS[name] for row in found["rows"]) and f"## {name} (" in report
        assert bool(found["rows"]) == bool(COLUMNS[name])
    assert all(parts["numbers"]["checks"].values()) and all(parts["waiting"]["checks"].values())
    assert all(parts["resume"]["checks"].values()) and parts["resume"]["rows"][0]["that differ"] == 0
    assert all(row["views/s"] > 0 for row in parts["steps"]["rows"]) and len(parts["steps"]["rows"]) == 6
    assert parts["loader"]["rows"][0]["both"] > 0 and 0 < parts["memory"]["rows"][0]["planned, MiB"] < 100


def test_without_a_gpu_it_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path)])
    monkeypatch.setitem(sys.modules, "datasets", None)  # what it changes for good is put back
    for name in ("PYTORCH_NVML_BASED_CUDA_CHECK", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert capsys.readouterr().err.endswith("there is no GPU here: --tiny runs the same on the CPU\n")


def fails(sizes):
    raise RuntimeError("CUDA error: out of luck\nand more")


def dies(sizes):
    os._exit(9)


def hangs(sizes):
    time.sleep(60)


@pytest.mark.parametrize(
    ("part", "error"),
    [(fails, "RuntimeError: CUDA error: out of luck"), (dies, "ended with code 9"), (hangs, "not done after 1 s")],
)
def test_a_part_fails_by_itself(part, error):
    found = gpu.run_part(part, TINY, 1 if part is hangs else 30)
    assert error in found["error"] and "\n" not in found["error"] and found["seconds"] < 30
    text = gpu.markdown({"device": "none"}, {"bad": found, "good": {**good(TINY)._asdict(), "seconds": 1}})
    assert f"**FAILED**: {found['error']}" in text
    assert "- passed: it is good" in text and "- **MISSED**: it is fast" in text and "| 1.235 |  |" in text


def good(sizes):
    return Report([{"a": 1.23456, "b": None}], {"it is good": True, "it is fast": False}, ("a note",))
