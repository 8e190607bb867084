"""Two ranks on a stream of images without labels: interrupted in an epoch and resumed, it is the same student."""

import shutil

import pytest
import timm
from timm.models import save_for_hf

from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary
from tests.conftest import ROOT, encoded, picture, run_python
from tests.processes.test_resume import assert_same_student


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two parquet files of images alone, an image that cannot be read among them."""
    import datasets

    folder = tmp_path_factory.mktemp("data")
    features = datasets.Features(image=datasets.Image())
    for split, numbers in (("train", range(26)), ("validation", range(100, 109))):
        for part in range(2):
            images = [encoded(picture(n % 3, n)) if n != 5 else b"broken" for n in numbers[part::2]]
            table = {"image": [{"bytes": data, "path": None} for data in images]}
            path = folder / "data" / f"{split}-{part:05d}-of-00002.parquet"
            path.parent.mkdir(exist_ok=True)
            datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    save_for_hf(timm.create_model("test_vit", num_classes=0), folder / "teacher", safe_serialization=True)
    return folder


def train(data, output, *more):
    flags = [
        "--dataset", f"hfids/{data}", "--model", "test_resnet", "--img-size", 32, "-b", 3, "-vb", 2, "-j", 0,
        "--epochs", 2, "--lr", 0.2, "--warmup-epochs", 0, "--device", "cpu", "--output", output, "--experiment", "run",
        "--kd-model-name", f"local-dir:{data / 'teacher'}", "--kd-teacher-img-size", "own", "--kd-distill-type", "dccd",
        "--num-classes", 0, "--task-loss-weight", 0, "--recovery-interval", 1, *more,
    ]  # fmt: skip
    done = run_python([ROOT / "train.py", *flags], processes=2)
    assert done.returncode == 0, done.stderr
    return output / "run"


def test_a_resume_in_an_epoch_leaves_the_same_student(data, tmp_path):
    whole = train(data, tmp_path / "whole")
    report = Report.read(whole)
    assert report.hardware.world == 2 and report.skipped_images == 1 and report.terms == {"contrast_loss": 5}
    assert timm.create_model(f"local-dir:{whole / 'best'}", pretrained=True).num_classes == 0
    parts = shutil.copytree(whole, tmp_path / "parts" / "run")
    for state in sorted((parts / "state").iterdir())[2:]:
        shutil.rmtree(state)
    shutil.rmtree(parts / "report")
    train(data, tmp_path / "parts", "--resume", "auto")
    assert_same_student(parts, whole)
    rows = [
        [{k: v for k, v in row.items() if "views" not in k} for row in read_summary(run / "summary.csv")]
        for run in (parts, whole)
    ]
    assert rows[0] == rows[1] and float(rows[0][-1]["eval_loss"]) > 0


SCORE = """
import json, torch
from accelerate import Accelerator
from dccd_timm.engine.probe import gather_rows
accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
whole = gather_rows(torch.arange(6.0).view(3, 2)[: 3 - rank] + 10 * rank, accelerator)
if accelerator.is_main_process:
    print(json.dumps(whole.tolist()))
accelerator.end_training()
"""


def test_rows_of_two_ranks_are_joined_whatever_their_numbers():
    done = run_python(["-c", SCORE], 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [10.0, 11.0], [12.0, 13.0]]"
