"""The programs start at once: what takes seconds to import is imported when the flags are right, and not for --help."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SLOW = {"torch", "torchvision", "timm", "datasets", "accelerate", "numpy", "huggingface_hub", "matplotlib"}
PROGRAMS = {
    "train.py": ["train.py", "--help"],
    "validate.py": ["validate.py", "--help"],
    "dccd-push": ["-c", "from dccd_timm.cli import push_main; push_main(['--help'])"],
    "dccd-report": ["-m", "dccd_timm.report", "--help"],
    "a mistake": ["train.py", "--lrr", "0.1"],
}


@pytest.mark.parametrize("words", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_starts_without_the_large_libraries(words):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "usage: dccd-" in done.stdout or "did you mean --lr" in done.stderr
    imported = {name.split(".")[0] for name in re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "dccd_timm" in imported
    assert not imported & SLOW


def test_the_public_names_are_there_when_asked_for():
    import dccd_timm

    assert set(dccd_timm.__all__) <= set(dir(dccd_timm))
    for name in dccd_timm.__all__:
        assert getattr(dccd_timm, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'DCCDTaks'"):
        _ = dccd_timm.DCCDTaks
