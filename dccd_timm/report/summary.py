"""summary.csv: a row for each epoch, with timm's columns, every loss term and the speed."""

import csv
from pathlib import Path

from timm.utils import update_summary

from dccd_timm.atomic import write_text
from dccd_timm.batch import Progress
from dccd_timm.recipe import Recipe

_SPEED = "views_per_second"
METRICS = ("loss", "top1", "top5")


def metric_columns(recipe: Recipe) -> tuple[str, ...]:
    """The metrics of a validation by a recipe, none without one."""
    if not recipe.val_split:
        return ()
    unlabelled = ("knn", "probe") if recipe.probe_split else ("loss",)
    return unlabelled if recipe.is_unlabelled else METRICS


def append_epoch(folder: Path, progress: Progress, metrics: dict[str, float], columns: tuple[str, ...]) -> None:
    """Append an epoch's row to the summary.csv of a run's ``folder``.

    It counts epochs from 0, as timm's does and all files of a run do; on the screen they count from 1.
    The evaluation ``columns`` are empty where ``metrics`` are, in epochs without validation.
    """
    path = folder / "summary.csv"
    if path.exists():
        _drop_rows_from(path, progress.epoch)
    evaluated = {name: metrics.get(name, "") for name in columns} or None
    train = dict(progress.losses) | {_SPEED: round(progress.views_per_second, 1)}
    update_summary(progress.epoch, train, evaluated, filename=str(path), lr=progress.lr, write_header=not path.exists())


def _drop_rows_from(path: Path, epoch: int) -> None:
    """Drop the rows of ``epoch`` and later: an interrupted run wrote them after the state that was resumed."""
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) < epoch]
    write_text(path, "\n".join([header, *kept]) + "\n")


def read_summary(path: Path) -> list[dict[str, str]]:
    """The rows of a summary.csv."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def loss_columns(rows: list[dict[str, str]]) -> dict[str, str]:
    """Columns of the training loss and all its terms, with the names that people read."""
    columns = [name for name in (rows[0] if rows else {}) if name.startswith("train_") and name != f"train_{_SPEED}"]
    names = {column: readable_term(column.removeprefix("train_")) for column in columns}
    return {column: "loss (weighted sum)" if name == "loss" else name for column, name in names.items()}


def readable_term(name: str) -> str:
    """A loss term's name as people read it: ``kd_loss`` is "kd loss"."""
    return name.replace("_", " ")
