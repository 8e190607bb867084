"""Comparisons over lengths of training, against runs whose answers follow from a formula."""

import argparse
import csv
import math

import numpy as np
import pytest

from benchmarks.compare import compare
from benchmarks.comparison import RunResult, mean_ratio
from benchmarks.lengths import (
    Point,
    default_accuracies,
    draw_lengths,
    markdown_lengths,
    reach,
    summarise_lengths,
    summarise_reach,
    top1_after,
    write_lengths,
    write_reach,
)
from benchmarks.runner import Job, Runner
from dccd_timm.errors import UserError

EPOCHS, SEEDS = (2, 4, 8, 16), {1: 0.3, 2: -0.1, 3: 0.2}  # an offset in points for each seed


def made_up(soon=None, cost=1.5, step=2.0):
    """KD has 80 + 2 log2(epochs), 10 s an epoch; DCCD what KD has after ``soon`` times as many, at ``cost`` times."""
    soon = soon or dict.fromkeys(SEEDS, 2.0)

    def top1(epochs, seed):
        return 80 + step * math.log2(epochs) + SEEDS[seed]

    return {
        epochs: {
            "KD": {seed: RunResult(top1(epochs, seed), train_seconds=10.0 * epochs) for seed in SEEDS},
            "DCCD": {s: RunResult(top1(soon[s] * epochs, s), train_seconds=cost * 10 * epochs) for s in SEEDS},
        }
        for epochs in EPOCHS
    }


def test_a_method_that_needs_half_of_the_epochs():
    rows = summarise_lengths(made_up(), "KD")
    assert [(row.epochs, row.row.method) for row in rows] == [(e, m) for e in EPOCHS for m in ("KD", "DCCD")]
    dccd = [row for row in rows if row.row.method == "DCCD"]
    assert all(row.row.difference == pytest.approx(2) and row.row.time_ratio == pytest.approx(1.5) for row in dccd)
    # in the same seconds it makes 1 / 1.5 of the epochs, as good as 2 / 1.5 of KD's; its shortest took 30 s, KD's 20
    assert dccd[0].equal_seconds is None and dccd[0].equal_seconds_pairs == 0
    assert all(row.equal_seconds[0] == pytest.approx(2 * math.log2(4 / 3)) for row in dccd[1:])
    assert all(row.equal_seconds_pairs == 3 and row.equal_seconds[1] == pytest.approx(0, abs=1e-9) for row in dccd[1:])

    kd, dccd = summarise_reach(made_up(), "KD", [85.0])  # after 2 ** 2.5 epochs, seeds aside
    assert kd.epochs == pytest.approx(np.mean([2 ** ((5 - offset) / 2) for offset in SEEDS.values()]), rel=0.01)
    assert dccd.epochs == pytest.approx(kd.epochs / 2) and dccd.seconds == pytest.approx(0.75 * kd.seconds)
    assert kd.epochs_ratio is None and kd.pairs == 0 and dccd.pairs == 3
    assert dccd.epochs_ratio == pytest.approx((0.5, 1)) and dccd.seconds_ratio == pytest.approx((0.75, 1))


def test_equal_seconds_need_every_pair():
    lengths = made_up()
    slow = lengths[2]["KD"][1]
    lengths[2]["KD"][1] = RunResult(slow.top1, train_seconds=35.0)  # DCCD's shortest took 30 s; the other seeds' KD 20
    row = summarise_lengths(lengths, "KD")[1]
    assert (row.row.method, row.epochs, row.equal_seconds, row.equal_seconds_pairs) == ("DCCD", 2, None, 0)


def test_the_interval_of_a_ratio_pairs_the_seeds():
    need = summarise_reach(made_up(soon={1: 1.5, 2: 2.0, 3: 3.0}), "KD", [86.0])[1]
    logs = np.log([1 / 1.5, 1 / 2.0, 1 / 3.0])
    half = 4.3027 * logs.std(ddof=1) / math.sqrt(3)  # Student's t of a printed table, 2 degrees
    mean, factor = need.epochs_ratio
    assert mean == pytest.approx(np.exp(logs.mean())) and factor == pytest.approx(np.exp(half), rel=1e-4)
    shown = markdown_lengths(summarise_lengths(made_up(), "KD"), [need], "KD")
    assert f"{mean:.2f} ({np.exp(logs.mean() - half):.2f} to {np.exp(logs.mean() + half):.2f})" in shown
    assert mean_ratio([]) is None and mean_ratio([(3.0, 2.0)]) == (pytest.approx(1.5), None)


def test_where_an_accuracy_lies_outside_of_the_lengths_no_number_is_invented():
    low, high = summarise_reach(made_up(), "KD", [82.5, 88.1])[1::2]
    assert (low.at_start, low.never, low.epochs, low.epochs_ratio, low.pairs) == (3, 0, None, None, 0)
    assert (high.at_start, high.never) == (0, 0) and high.epochs and high.pairs == 0  # KD has it in seeds 1 and 3 only
    kd = summarise_reach(made_up(), "KD", [88.1])[0]
    assert (kd.never, kd.epochs, kd.seconds) == (1, None, None)
    shown = markdown_lengths(summarise_lengths(made_up(), "KD"), [low, kd], "KD")
    assert "| 82.50 | DCCD | 3 | under 2 in 3 of 3 |" in shown and "| 88.10 | KD | 3 | never in 1 of 3 |" in shown


def test_a_seed_without_all_lengths_does_not_count():
    lengths = made_up()
    del lengths[8]["DCCD"][2]
    kd, dccd = summarise_reach(lengths, "KD", [85.0])
    assert (kd.seeds, dccd.seeds, dccd.pairs) == (3, 2, 2) and dccd.epochs_ratio == pytest.approx((0.5, 1))
    for runs in lengths.values():
        runs["DCCD"].pop(2, None), runs["DCCD"].pop(1), runs["DCCD"].pop(3)
    assert [row.row.method for row in summarise_lengths(lengths, "KD")] == ["KD"] * 4
    empty = summarise_reach(lengths, "KD", [85.0])[1]
    assert (empty.seeds, empty.epochs) == (0, None)
    assert "| not every length has run |" in markdown_lengths(summarise_lengths(lengths, "KD"), [empty], "KD")


def test_the_first_crossing_of_a_curve_that_falls_counts():
    points = [Point(e, 10 * e, top1) for e, top1 in ((2, 80.0), (4, 84.0), (8, 82.0), (16, 90.0))]
    assert reach(points, 83).epochs == pytest.approx(2 * 2**0.75) and reach(points, 83).seconds == pytest.approx(
        33.636, abs=1e-3
    )
    assert reach(points, 86).epochs == pytest.approx(8 * 2**0.5)
    assert reach(points, 79) is points[0] and reach(points, 91) is None and reach([], 50) is None
    assert top1_after(points, 40) == 84 and top1_after(points, 19.9) is None and top1_after(points, 160) == 90
    assert top1_after(points, math.sqrt(20 * 40)) == pytest.approx(82)


def test_the_accuracies_are_half_way_between_the_controls_where_it_gains():
    assert default_accuracies(made_up(), "KD") == [83.13, 85.13, 87.13]  # 80 + 2, 4, 6, 8, and 0.13 of the seeds
    assert default_accuracies(made_up(step=-1.0), "KD") == []
    assert markdown_lengths(summarise_lengths(made_up(), "KD"), [], "KD").endswith(
        "\nKD gains nothing from a longer training: no accuracy to reach.\n"
    )


def test_files_of_a_comparison_over_lengths(tmp_path):
    rows, need = summarise_lengths(made_up(), "KD"), summarise_reach(made_up(), "KD", [85.0])
    write_lengths(tmp_path / "lengths.csv", rows), write_reach(tmp_path / "reach.csv", need)
    draw_lengths(tmp_path / "lengths.png", rows)
    assert (tmp_path / "lengths.png").stat().st_size > 10_000
    read = {name: list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("lengths", "reach")}
    assert [row["epochs"] for row in read["lengths"]] == [str(e) for e in EPOCHS for _ in range(2)]
    assert float(read["lengths"][3]["equal_seconds_difference"]) == pytest.approx(0.830, abs=1e-3)
    assert float(read["reach"][1]["seconds_ratio"]) == pytest.approx(0.75) and read["reach"][0]["seconds_ratio"] == ""


def test_the_folder_of_a_single_length_has_the_name_that_it_always_had(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("epochs: 3\n")
    runner = Runner(tmp_path, recipe, 1)
    job, longer = Job("two-view KD", ("--lr", "1"), 42), Job("two-view KD", ("--lr", "1"), 42, 8)
    assert runner.folder(job) == tmp_path / "two-view-KD-42"
    assert runner.folder(longer) == tmp_path / "two-view-KD-42-epochs8"
    assert runner.identity(job) == {"recipe": "epochs: 3\n", "flags": ["--lr", "1"], "seed": 42}
    assert runner.arguments(longer)[-4:] == ["--lr", "1", "--epochs", "8"]
    assert (str(job), str(longer)) == ("two-view KD, seed 42", "two-view KD, seed 42, 8 epochs")


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        (dict(epochs_list=[4]), "two numbers of epochs or more"),
        (dict(epochs_list=[4, 4]), "all different"),
        (dict(epochs_list=[0, 4]), "two numbers"),
        (dict(epochs_list=[2, 4], flags="--epochs=3"), "sets --epochs"),
        (dict(epochs_list=[2, 4], control="two-view KD"), "add 'two-view KD' to --methods"),
        (dict(reach=[80.0]), "--reach needs --epochs-list"),
    ],
)
def test_lengths_that_cannot_be_compared_are_refused(changed, cause, tmp_path):
    choices = dict(
        config=tmp_path / "r.yaml", output=tmp_path, seeds=[1], methods=["DCCD"], method=[], jobs=1, flags="",
        control="DCCD", epochs_list=None, reach=None,
    )  # fmt: skip
    with pytest.raises(UserError, match=cause):
        compare(argparse.Namespace(**choices | changed))
