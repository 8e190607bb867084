"""benchmarks/compare.py: its statistics against numbers worked out by hand, and a comparison as a user runs it."""

import argparse
import csv
import math
import statistics

import pytest

from benchmarks.compare import CONTROL, NAMED, VARIANTS, choose_methods
from benchmarks.compare import compare as run_comparison
from benchmarks.comparison import RunResult, markdown, mean_interval, summarise
from dccd_timm.errors import UserError
from dccd_timm.recipe.methods import METHODS
from tests.conftest import run_program


@pytest.mark.parametrize(
    ("degrees", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)]
)
def test_the_interval_is_students_t_of_printed_tables(degrees, table):
    values = [float(k) for k in range(degrees + 1)]
    mean, half = mean_interval(values)
    assert mean == pytest.approx(degrees / 2)
    assert half / (statistics.stdev(values) / math.sqrt(len(values))) == pytest.approx(table, abs=5e-4)


def test_paired_differences_by_hand():
    def runs(**top1):
        return {int(k[1:]): RunResult(v) for k, v in top1.items()}

    # seed 4 has no partner; differences 1, 2, 3: mean 2, standard deviation 1, half interval 4.303 / sqrt(3) = 2.484
    rows = summarise({"A": runs(s1=80.0, s2=90.0, s3=70.0), "B": runs(s3=73.0, s1=81.0, s4=99.0, s2=92.0)}, "A")
    assert rows[0].top1 == 80 and rows[0].top1_stdev == 10 and rows[0].difference is None
    assert (rows[1].seeds, rows[1].pairs, rows[1].difference) == (4, 3, pytest.approx(2))
    assert rows[1].half_interval == pytest.approx(2.484, abs=1e-3)
    assert "+2.00 (-0.48 to +4.48)" in markdown(rows, "A")
    assert mean_interval([5.0]) == (5.0, None)


def test_time_and_sensitivity_are_paired_with_the_controls_by_hand():
    values = {"A": {1: (0.50, 10.0), 2: (0.40, 20.0)}, "B": {1: (0.55, 20.0), 2: (0.47, 10.0), 3: (0.48, None)}}
    runs = {
        method: {seed: RunResult(80.0, sensitivity=s, train_seconds=t) for seed, (s, t) in seeds.items()}
        for method, seeds in values.items()
    }
    rows = summarise(runs, "A")
    assert (rows[0].sensitivity, rows[0].sensitivity_difference, rows[0].time_ratio) == (
        pytest.approx(0.45),
        None,
        None,
    )
    # differences 0.05 and 0.07: mean 0.06, half interval 12.706 * 0.01414 / sqrt(2) = 0.127; ratios 2 and 0.5: mean 1
    assert rows[1].sensitivity == pytest.approx(0.5) and rows[1].time_ratio == pytest.approx(1)
    assert rows[1].sensitivity_difference == pytest.approx(0.06)
    assert rows[1].sensitivity_half_interval == pytest.approx(0.127, abs=1e-3)
    assert "| 1.00 | 0.500 | +0.060 (-0.067 to +0.187) |" in markdown(rows, "A")
    old = summarise({"A": {1: RunResult(80.0)}, "B": {1: RunResult(81.0)}}, "A")  # of runs before it was measured
    assert old[1].sensitivity is old[1].sensitivity_difference is old[1].time_ratio is None


def test_every_method_of_the_package_can_be_named_and_the_default_is_the_variants():
    assert set(METHODS) <= set(NAMED) and list(choose_methods(None, [])) == list(VARIANTS)
    everything = choose_methods(["all"], [])
    assert {"DCCD", CONTROL, "KD (dkd)", "DCCD (wttm)", "fitnet", "ofa"} <= set(everything) and len(everything) == 18
    assert choose_methods(["token", CONTROL], ["mine=--lr 1"]) == {
        "token": ["--kd-distill-type", "token", "--dccd-views", "2"],
        CONTROL: ["--kd-distill-type", "logit", "--dccd-views", "2"],
        "mine": ["--lr", "1"],
    }
    for names, own, cause in (
        (["no"], [], "no method 'no'"),
        ([CONTROL], [f"{CONTROL}="], "two methods"),
        (None, ["x"], "NAME=FLAGS"),
    ):
        with pytest.raises(UserError, match=cause):
            choose_methods(names, own)


def test_a_comparison_runs_and_continues(parquet, teacher, tmp_path):
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(
        f"dataset: hfids/{parquet}\nval_split: test\nmodel: resnetv2_18\nimg_size: 32\nbatch_size: 16\nworkers: 0\n"
        "model_kwargs: {layers: [1, 1, 1], channels: [8, 16, 24], stem_chs: 8}\nepochs: 1\nwarmup_epochs: 0\nlr: 0.05\n"
        f"kd_model_name: local-dir:{teacher}\nkd_distill_type: dccd\ndccd_control: none\n"
    )

    def compare(*flags):
        return run_program("-c", recipe, "--output", out, "--seeds", 1, 2, *flags, program="benchmarks/compare.py")

    two = ("--methods", "two-view KD", "--method", "mine=--dccd-contrast-weight 0.2", "--jobs", 2)
    done = compare(*two)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", seed ") == 4
    with (out / "runs.csv").open() as stream:
        runs = {(row["method"], row["seed"]): row for row in csv.DictReader(stream)}
    assert len(runs) == 4
    with (out / "mine-2" / "summary.csv").open() as stream:
        assert runs["mine", "2"]["top1"] == list(csv.DictReader(stream))[-1]["eval_top1"]
    assert int(runs["mine", "1"]["views_seen"]) == 3 * 16 * 2  # batches, images, views: all 48 images
    assert (out / "comparison.png").stat().st_size > 10_000
    assert "| mine | 2 | " in (out / "comparison.md").read_text()

    before = {p: p.stat().st_mtime_ns for p in out.glob("*/report/report.json")}
    assert compare(*two).returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("*/report/report.json")}  # finished runs are kept

    for flags, cause in (
        ("--dccd-contrast-weight 0.3", "trained by another recipe or other flags"),
        ("--dccd-contrast-wieght 0.3", "method mine: .*dccd-contrast-weight"),
    ):
        choices = dict(config=recipe, output=out, seeds=[1], methods=None, jobs=1, flags="", control="mine", reach=None)
        with pytest.raises(UserError, match=cause):
            run_comparison(argparse.Namespace(**choices, epochs_list=None, method=[f"mine={flags}"]))

    done = run_program(
        "-c", recipe, "--output", out, "--seeds", 1, "--methods", CONTROL, "--jobs", 2, "--epochs-list", 2, 1,
        program="benchmarks/compare.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in before}  # the runs of the recipe's own length are others
    with (out / "runs.csv").open() as stream:
        views = {row["epochs"]: int(row["views_seen"]) for row in csv.DictReader(stream)}
    assert views == {"1": 3 * 16 * 2, "2": 2 * 3 * 16 * 2}
    assert (out / "lengths.png").stat().st_size > 10_000
    assert f"| 2 | {CONTROL} | 1 | " in (out / "comparison.md").read_text()
    columns = []
    for name in ("two-view-KD-1-epochs1", "two-view-KD-1"):
        with (out / name / "summary.csv").open() as stream:
            columns.append([row["eval_top1"] for row in csv.DictReader(stream)])
    assert columns[0] == columns[1]
