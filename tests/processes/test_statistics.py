"""Two ranks and BatchNorm: what is evaluated is what is exported, plain or averaged, also after a resume in an epoch."""

import shutil

import pytest
import timm
import torch
from torch.nn import functional as F

from dccd_timm.report.summary import read_summary
from tests.conftest import ROOT, picture, run_python, write_folders
from tests.processes.test_resume import assert_same_student


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 images to train with, and 9 to validate: in batches of 2 the first rank has one batch more than the second."""
    return write_folders(tmp_path_factory.mktemp("images"), per_class=(8, 3))


def train(images, output, name, *more):
    flags = [
        "--data-dir", images, "--model", "test_resnet", "--img-size", 32, "-b", 3, "-vb", 2, "-j", 0, "--epochs", 2,
        "--lr", 0.2, "--warmup-epochs", 0, "--device", "cpu", "--output", output, "--experiment", name,
        "--model-ema", "--model-ema-decay", 0.5, "--recovery-interval", 1, *more,
    ]  # fmt: skip
    done = run_python([ROOT / "train.py", *flags], processes=2)
    assert done.returncode == 0, done.stderr
    return output / name


def loss_of(folder):
    """The loss of an exported student on the validation split, by plain timm."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        logits = model(torch.stack([transform(picture(k % 3, k)) for k in range(9)]))
    return F.cross_entropy(logits, torch.arange(9) % 3).item()


def results(run):
    """The rows without the speed."""
    return [{k: v for k, v in row.items() if "views" not in k} for row in read_summary(run / "summary.csv")]


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """A run whose ranks keep their own statistics within an epoch."""
    return train(images, tmp_path_factory.mktemp("whole"), "run", "--no-ddp-bb")


def test_the_row_is_that_of_the_exported_average(whole):
    assert float(results(whole)[-1]["eval_loss"]) == pytest.approx(loss_of(whole / "last"), rel=1e-6)


def test_so_it_is_when_no_statistics_are_shared(images, tmp_path):
    run = train(images, tmp_path, "run", "--dist-bn=")
    assert float(results(run)[-1]["eval_loss"]) == pytest.approx(loss_of(run / "last"), rel=1e-6)


def test_a_resume_in_an_epoch_changes_neither_rows_nor_student(whole, images, tmp_path):
    parts = tmp_path / "run"
    shutil.copytree(whole, parts)
    states = sorted((parts / "state").iterdir())
    assert len(states) == 8
    for state in states[2:]:  # as if the run had been cut after the second of four updates
        shutil.rmtree(state)
    shutil.rmtree(parts / "report")
    train(images, tmp_path, "run", "--no-ddp-bb", "--resume", "auto")
    assert results(parts) == results(whole)
    assert_same_student(parts, whole)
