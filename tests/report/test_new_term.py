"""A method and a loss term that this package does not know appear wherever methods and terms are shown."""

import dataclasses

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml

from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.methods import METHODS, Method
from dccd_timm.report.pictures import Evidence, draw_curves, pyplot
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary
from dccd_timm.run import pieces
from dccd_timm.run.train import train
from dccd_timm.task.dccd import DCCDTask, Term


def mirror_loss(task, answers):
    """A term that this package does not have."""
    return F.mse_loss(answers.student, answers.teacher)


@pytest.fixture
def run(folders, tmp_path, monkeypatch, fresh_accelerator, capsys):
    """A run by a method that only this test knows, its control too: its folder, and what it printed."""

    build_task = pieces.build_task

    def build_mirror_task(recipe, *rest):
        return build_task(dataclasses.replace(recipe, kd_distill_type="dccd", dccd_views=2), *rest)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(METHODS, "mirror", Method("mirror", "mirroring", ("task_loss", "mirror_loss"), ("logits",)))
    monkeypatch.setattr(pieces, "build_task", build_mirror_task)
    more = (Term("mirror_loss", lambda task: 0.75, mirror_loss), Term("idle_loss", lambda task: 0.0, mirror_loss))
    monkeypatch.setattr(DCCDTask, "TERMS", (*DCCDTask.TERMS, *more))
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "teacher.pth")
    recipe = load_recipe([
        "--data-dir", str(folders), "--val-split", "validation", "--dccd-views", "2", "--model", "test_resnet", "--img-size", "32", "-b", "16", "-j", "0",
        "--epochs", "1", "--warmup-epochs", "0", "--kd-model-name", "test_resnet", "--kd-teacher-checkpoint",
        str(tmp_path / "teacher.pth"), "--output", str(tmp_path / "out"), "--experiment", "run", "--allow-weak-teacher",
    ])  # fmt: skip
    recipe = dataclasses.replace(recipe, kd_distill_type="mirror", dccd_control=("mirror",))
    train(recipe, HubPublisher(recipe))
    return tmp_path / "out" / "run", capsys.readouterr().out


def test_a_new_method_and_a_new_term_are_shown_everywhere(run):
    folder, shown = run
    assert "mirror, task 1, kd 1, contrast 5, difference 0.02, mirror 0.75\n" in shown  # the start block
    assert "student (test_resnet, mirror)" in shown and "control (test_resnet, mirror)" in shown  # the closing table

    report = Report.read(folder)
    assert report.method == "mirror"
    assert report.terms == {
        "task_loss": 1.0, "kd_loss": 1.0, "contrast_loss": 5.0, "difference_loss": 0.02, "mirror_loss": 0.75,
    }  # fmt: skip
    assert report.control.label == "student by mirroring"

    (row,) = read_summary(folder / "summary.csv")
    assert float(row["train_mirror_loss"]) > 0

    figure = draw_curves(pyplot(), Evidence(report, {"student (mirror)": folder / "summary.csv"}))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "loss (weighted sum)", "task loss", "kd loss", "contrast loss", "difference loss", "mirror loss",
    ]  # fmt: skip

    card = (folder / "README.md").read_text()
    assert "distilled by mirroring from" in card and "student by mirroring" in card
    assert "| `mirror_loss` | 0.75 |" in card and "idle_loss" not in card
    assert yaml.safe_load((folder / "args.yaml").read_text())["kd_distill_type"] == "mirror"
