"""compare.py: statistics by hand, and a comparison that keeps what is finished."""

import csv
import importlib.util
import math
import subprocess
import sys

import pytest

from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("compare", ROOT / "benchmarks" / "compare.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]  # printed tables
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(degrees, expected):
    assert compare.t_quantile(0.975, degrees) == pytest.approx(expected, abs=6e-4)


def test_differences_are_paired_by_seed():
    """Gains 1, 2 and 3: mean 2, standard deviation 1, half of the interval 4.303 / sqrt(3)."""
    gain, half = compare.paired({1: 11.0, 2: 22.0, 3: 33.0, 9: 0.0}, {3: 30.0, 2: 20.0, 1: 10.0})
    assert gain == 2 and half == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert compare.paired({1: 2.0}, {1: 1.0}) == (1.0, None)
    assert math.isnan(compare.paired({1: 2.0}, {2: 1.0})[0])


def test_a_comparison_goes_on_and_writes_what_it_found(small, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text("epochs: 1\nmodel: resnetv2_18\n")
    flags = [str(word) for word in small[:-4] if word not in ("--epochs", 2)] + ["--epochs", "1"]
    flags = [word for word in flags if word not in ("--kd-distill-type", "dccd")]
    words = [
        sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(recipe), "--out", str(tmp_path / "out"), "--methods",
        "kd-2", "--method", "strong=--dccd-contrast-weight 1", "--seeds", "1", "--flags", " ".join(flags),
    ]  # fmt: skip
    first = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert first.returncode == 0, first.stderr
    report = tmp_path / "out" / "kd-2-1" / "report" / "report.json"
    written = report.stat().st_mtime_ns
    again = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0 and report.stat().st_mtime_ns == written
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert [(row["method"], row["seed"], row["views"]) for row in rows] == [("kd-2", "1", "96"), ("strong", "1", "96")]
    assert "| strong |" in (tmp_path / "out" / "compare.md").read_text()
    assert (tmp_path / "out" / "compare.png").stat().st_size > 5000
    words.remove("strong=--dccd-contrast-weight 1"), words.remove("--method")
    bad = subprocess.run(
        [*words[:-1], words[-1] + " --opt sgdx", "--seeds", "2"], capture_output=True, text=True, timeout=90
    )
    assert bad.returncode == 1 and "failed: kd-2 seed 2" in bad.stderr and "did you mean sgd" in bad.stderr
