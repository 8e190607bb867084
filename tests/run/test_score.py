"""A training on images without labels: what it is scored by, what it leaves, and what follows it."""

import json

import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from dccd_timm.cli import train_main, validate_main
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.report.schema import Report
from dccd_timm.report.summary import read_summary
from dccd_timm.run.redraw import redraw
from tests.conftest import CLASSES, picture
from tests.run.test_load_teacher import save_teacher

SIZE = 32


def write(folder, numbers):
    for number in numbers:
        path = folder / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number % 3, number, SIZE).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Unlabelled images in one folder, and labelled ones in two splits."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(18):
        (folder / "train").mkdir(exist_ok=True)
        picture(number % 3, number, SIZE).save(folder / "train" / f"{number}.png")
    write(folder / "validation", range(100, 118))
    write(folder / "labelled", range(200, 230))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"), 7)


def flags(data, teacher, out, *more):
    return [*map(str, (
        "--data-dir", data, "--model", "test_resnet", "--img-size", SIZE, "-b", 6, "-j", 0, "--epochs", 2, "--lr", 0.05,
        "--warmup-epochs", 0, "--device", "cpu", "--kd-model-name", teacher, "--kd-distill-type", "dccd",
        "--num-classes", 0, "--task-loss-weight", 0, "--output", out, "--experiment", "run", *more,
    ))]  # fmt: skip


def features_of(folder, numbers):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert model.num_classes == 0
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        return model(torch.stack([transform(picture(n % 3, n, SIZE)) for n in numbers])).numpy()


def test_neighbours_and_probe_are_scikit_learns_on_the_exported_student(
    data, teacher, tmp_path, fresh_accelerator, capsys
):
    run = tmp_path / "run"
    train_main(flags(data, teacher, tmp_path, "--probe-split", "labelled"))
    shown = capsys.readouterr().out
    assert "method     dccd, contrast 5, no labels: the student has no head" in shown
    assert "by its neighbours among those of" in shown and "k-NN" in shown
    report = Report.read(run)
    bank, queries = features_of(run / "best", range(200, 230)), features_of(run / "best", range(100, 118))
    classes, wanted = [n % 3 for n in range(200, 230)], [n % 3 for n in range(100, 118)]
    nearest = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(bank, classes)
    assert report.student.knn == pytest.approx(100 * nearest.score(queries, wanted))
    scaler = StandardScaler().fit(bank)
    linear = LogisticRegression(C=1, max_iter=2000).fit(scaler.transform(bank), classes)
    assert report.student.probe == pytest.approx(100 * linear.score(scaler.transform(queries), wanted))
    rows = read_summary(run / "summary.csv")
    assert (
        max(float(row["eval_knn"]) for row in rows) == pytest.approx(report.student.knn) and "eval_top1" not in rows[0]
    )
    assert report.terms == {"contrast_loss": 5} and report.student.head == report.teacher.head == "none"
    assert report.teacher.knn is not None and report.redundancy.teacher is not None and report.classes is None
    assert report.splits.validation.images == 18
    card = (run / "README.md").read_text()
    assert "A backbone without a head" in card and "classifier for" not in card and "softmax" not in card
    assert f"**k-NN {report.student.knn:.2f} %" in card and "pipeline_tag: image-feature-extraction" in card
    before = json.loads((run / "report" / "report.json").read_text())
    redraw(run, None, HubPublisher)
    assert json.loads((run / "report" / "report.json").read_text()) == before
    fine_tuned(data, run, tmp_path)


def fine_tuned(data, run, out):
    """The student starts a training with labels, of which plain timm takes all weights but the head's."""
    model = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True, num_classes=3)
    body = timm.create_model(f"local-dir:{run / 'best'}", pretrained=True).state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())
    train_main([*map(str, (
        "--data-dir", data, "--train-split", "labelled", "--model", f"local-dir:{run / 'best'}", "--pretrained",
        "--kd-distill-type", "none", "--img-size", SIZE, "-b", 6, "-j", 0, "--epochs", 1, "--warmup-epochs", 0, "--device",
        "cpu", "--output", out, "--experiment", "tuned",
    ))])  # fmt: skip
    report = Report.read(out / "tuned")
    assert report.student.top1 is not None and report.student.start is not None
    assert timm.create_model(f"local-dir:{out / 'tuned' / 'best'}", pretrained=True).num_classes == 3


def test_without_a_labelled_split_the_loss_makes_the_best_epoch(
    data, teacher, tmp_path, fresh_accelerator, capsys, without_pictures
):
    train_main(flags(data, teacher, tmp_path, "--model-ema", "--model-ema-decay", 0.5))
    rows = read_summary(tmp_path / "run" / "summary.csv")
    losses = [float(row["eval_loss"]) for row in rows]
    assert "validation loss" in capsys.readouterr().err and len(losses) == 2
    report = Report.read(tmp_path / "run")
    assert report.student.knn is None and report.student.top1 is None and report.weights in ("raw", "ema")
    card = (tmp_path / "run" / "README.md").read_text()
    assert "k-NN" not in card and "accuracy is slightly too high" not in card


def test_a_student_without_a_head_is_not_validated_by_its_accuracy(data, teacher, tmp_path, fresh_accelerator, capsys):
    with pytest.raises(SystemExit):
        validate_main([teacher.replace("local-dir:", ""), "--data-dir", str(data), "--num-classes", "0"])
    assert "has no classifier (num_classes 0): fine-tune it first" in capsys.readouterr().err


def test_a_probe_split_of_the_same_images_is_refused(data, teacher, tmp_path, fresh_accelerator, capsys):
    with pytest.raises(SystemExit):
        train_main(flags(data, teacher, tmp_path, "--probe-split", "validation"))
    assert "which would be their own neighbours" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
