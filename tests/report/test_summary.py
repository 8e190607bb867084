"""summary.csv: timm's columns and every loss term, and no epoch twice after a resume."""

import csv

from dccd_timm.batch import Progress
from dccd_timm.report.summary import METRICS as EVALUATED
from dccd_timm.report.summary import append_epoch, loss_columns, read_summary

LOSSES = {"loss": 3.0, "task_loss": 1.0, "mirror_loss": 2.0}
METRICS = {"loss": 1.5, "top1": 60.0, "top5": 90.0}


def progress(epoch, **losses):
    return Progress(epoch, 10 * epoch, LOSSES | losses, lr=0.1, views_per_second=123.45)


def test_a_row_has_timms_columns_and_every_term(tmp_path):
    append_epoch(tmp_path, progress(0), METRICS, EVALUATED)
    (row,) = read_summary(tmp_path / "summary.csv")
    assert list(row) == ["epoch", "train_loss", "train_task_loss", "train_mirror_loss", "train_views_per_second",
                         "eval_loss", "eval_top1", "eval_top5", "lr"]  # fmt: skip
    assert (row["train_mirror_loss"], row["eval_top1"], row["lr"]) == ("2.0", "60.0", "0.1")
    assert loss_columns([row]) == {
        "train_loss": "loss (weighted sum)", "train_task_loss": "task loss", "train_mirror_loss": "mirror loss",
    }  # fmt: skip
    assert loss_columns([]) == {}


def test_an_epoch_without_validation_leaves_its_metrics_empty(tmp_path):
    append_epoch(tmp_path, progress(0), {}, EVALUATED)
    assert read_summary(tmp_path / "summary.csv")[0]["eval_top1"] == ""


def test_a_run_without_validation_has_no_columns_for_it(tmp_path):
    append_epoch(tmp_path, progress(0), {}, ())
    assert not any(name.startswith("eval") for name in read_summary(tmp_path / "summary.csv")[0])


def test_the_file_counts_epochs_from_0(tmp_path):
    append_epoch(tmp_path, progress(2), METRICS, EVALUATED)
    assert read_summary(tmp_path / "summary.csv")[0]["epoch"] == "2"


def test_a_resumed_epoch_replaces_the_rows_after_its_state(tmp_path):
    for epoch in range(3):
        append_epoch(tmp_path, progress(epoch), METRICS, EVALUATED)
    with (tmp_path / "summary.csv").open("a") as stream:
        stream.write("3,torn")  # the run was killed while it wrote
    append_epoch(tmp_path, progress(1, loss=9.0), METRICS, EVALUATED)
    with (tmp_path / "summary.csv").open(newline="") as stream:
        assert [(row["epoch"], row["train_loss"]) for row in csv.DictReader(stream)] == [("0", "3.0"), ("1", "9.0")]
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]
