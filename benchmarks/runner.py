"""The trainings of a comparison: the folder of each one, running those that are missing, reading their numbers."""

import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import torch

from benchmarks.comparison import RunResult
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Job:
    """One training: a method with its flags and a seed; ``epochs`` is None for the recipe's."""

    method: str
    flags: tuple[str, ...]
    seed: int
    epochs: int | None = None

    def __str__(self) -> str:
        return f"{self.method}, seed {self.seed}" + (f", {self.epochs} epochs" if self.epochs else "")

    @property
    def folder_name(self) -> str:
        """The name of its folder: METHOD-SEED for the recipe's own length, so that no other length can have it."""
        return f"{slug(self.method)}-{self.seed}" + (f"-epochs{self.epochs}" if self.epochs else "")

    @property
    def all_flags(self) -> list[str]:
        """Its flags, with that of its length."""
        return [*self.flags, *(["--epochs", str(self.epochs)] if self.epochs else [])]


class Runner:
    """Trains students in ``jobs`` slots that share the cores and the GPUs."""

    def __init__(self, output: Path, recipe: Path, jobs: int) -> None:
        self.output, self.recipe, self.jobs = output, recipe, jobs
        self.threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if gpus == [""]:
            gpus = [str(number) for number in range(torch.cuda.device_count())]
        self.slots: Queue[str] = Queue()
        for job in range(jobs):
            self.slots.put(gpus[job % len(gpus)] if gpus else "")
        self.running: set[subprocess.Popen[str]] = set()
        self.stopping = False

    def arguments(self, job: Job) -> list[str]:
        """The arguments of train.py that decide which student comes out."""
        return ["-c", str(self.recipe), "--dccd-control", "", "--seed", str(job.seed), *job.all_flags]

    def folder(self, job: Job) -> Path:
        """The folder of a run."""
        return self.output / job.folder_name

    def is_finished(self, job: Job) -> bool:
        """Whether a run has come to its end."""
        return Report.read(self.folder(job)) is not None

    def check(self, job: Job) -> None:
        """Refuse wrong flags, and a folder that holds another training of the same name.

        Raises:
            UserError: names the method.
        """
        try:
            recipe = load_recipe(self.arguments(job))
        except UserError as error:
            raise UserError(f"method {job.method}: {error}") from None
        if not recipe.val_split:
            raise UserError(f"{self.recipe} has no val_split: nothing to compare")
        folder = self.folder(job)
        identity = beside(folder, ".json")
        if identity.is_file() and json.loads(identity.read_text()) != self.identity(job):
            raise UserError(f"{folder} was trained by another recipe or other flags: set --output")

    def identity(self, job: Job) -> dict[str, object]:
        """What decides a training; kept in a file beside its folder."""
        return {"recipe": self.recipe.read_text(), "flags": job.all_flags, "seed": job.seed}

    def run(self, job: Job) -> str:
        """Train, unless it is done; returns the last line of the error, or nothing."""
        folder = self.folder(job)
        if self.stopping or self.is_finished(job):
            return ""
        self.output.mkdir(parents=True, exist_ok=True)
        beside(folder, ".json").write_text(json.dumps(self.identity(job)))
        output = ["--output", str(self.output), "--experiment", folder.name, "--resume", "auto"]
        gpu = self.slots.get()
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(ROOT)}
        env |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        log = beside(folder, ".log")
        try:
            with log.open("a") as stream:
                child = subprocess.Popen(
                    [sys.executable, str(ROOT / "train.py"), *self.arguments(job), *output],
                    stdout=stream, stderr=subprocess.STDOUT, text=True, env=env,
                )  # fmt: skip
                self.running.add(child)
                if self.stopping:  # the signal came before the process was in the set
                    child.terminate()
                child.wait()
        finally:
            self.slots.put(gpu)
        self.running.discard(child)
        if child.returncode == 0 or self.stopping:
            return ""
        return f"{(log.read_text().splitlines() or ['it printed nothing'])[-1]} (code {child.returncode}, {log})"

    def stop(self, *_: object) -> None:
        """Let the running trainings save and end; start no more."""
        self.stopping = True
        for child in list(self.running):
            child.terminate()


def read_run(folder: Path) -> RunResult:
    """A finished run's numbers.

    Raises:
        UserError: for a folder without a report.
    """
    report, epochs = Report.read(folder), read_summary(folder / "summary.csv")
    if report is None:
        raise UserError(f"{folder} holds no finished run: it has no report/report.json")
    # by epoch, because an interrupted run continued in another process; without validation
    seconds = sum(report.views_seen / len(epochs) / float(row["train_views_per_second"]) for row in epochs)
    correlations = [
        change.student.correlation
        for change in (report.sensitivity.changes if report.sensitivity else [])
        if change.student.correlation is not None
    ]
    return RunResult(
        top1=float(epochs[-1]["eval_top1"]),
        agreement=report.student.agreement,
        effective_rank=report.redundancy.student.effective_rank if report.redundancy else None,
        views_seen=report.views_seen,
        train_seconds=seconds,
        sensitivity=statistics.mean(correlations) if correlations else None,
    )


def beside(folder: Path, ending: str) -> Path:
    """The file beside a run's folder with its name and another ending (not with_suffix: names contain dots)."""
    return folder.parent / f"{folder.name}{ending}"


def slug(method: str) -> str:
    """A method's name as part of a folder's."""
    return re.sub(r"[^\w.]+", "-", method).strip("-")
