"""A teacher that was trained at another size than the student's: what it is fed, and what the run says of it.

The quickstart's teacher knows clothes at 56 pixels (92 %) and hardly at 32 (30 %).
"""

import json

import pyarrow.parquet as pq
import pytest
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.cli import train_main
from dccd_timm.errors import UserError
from dccd_timm.hub.publisher import HubPublisher
from dccd_timm.launch.accelerator import start_accelerator
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.report.schema import Report
from dccd_timm.run.pieces import build_training, open_splits
from dccd_timm.run.redraw import redraw
from dccd_timm.run.validate import validate
from tests.conftest import ROOT

QUICKSTART = ROOT / "recipes" / "quickstart"
TEACHER = f"local-dir:{QUICKSTART / 'teacher'}"


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A few images of the quickstart: 32 to train on, 200 to evaluate."""
    folder = tmp_path_factory.mktemp("clothes") / "data"
    folder.mkdir()
    for split, parts, count in (("train", 4, 32), ("test", 1, 200)):
        name = f"{split}-00000-of-{parts:05d}.parquet"
        table = pq.read_table(QUICKSTART / "fashion-mnist" / "data" / name).slice(0, count)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


def flags(clothes, method, *more, size=(1, 32, 32)):
    student = ["--model", "deit_tiny_distilled_patch16_224", "--model-kwargs", "depth=1", "patch_size=8"]
    if method != "token":
        student = ["--model", "test_resnet"]
    return [*map(str, (
        "--dataset", f"hfids/{clothes}", "--val-split", "test", *student, "--input-size", *size, "--mean", 0.286,
        "--std", 0.353, "--crop-pct", 1, "--kd-model-name", TEACHER, "--kd-distill-type", method, "-b", 16, "-j", 0,
        "--epochs", 1, "--warmup-epochs", 0, "--device", "cpu", *more,
    ))]  # fmt: skip


def teacher_top1(training):
    right = total = 0
    for batch in training.val:
        answers = training.teacher(batch.views.flatten(0, 1)).argmax(1)
        right, total = right + (answers == batch.target).sum().item(), total + len(answers)
    return 100 * right / total


@pytest.mark.parametrize("method", ["dccd", "logit", "feature", "token", "none"])
@pytest.mark.parametrize(
    ("choice", "lowest", "highest"),
    [([], 85, 100), (["--kd-teacher-img-size", 60], 85, 100), (["--kd-teacher-img-size", "student"], 0, 50)],
)
def test_the_teacher_is_fed_its_own_size_unless_told_otherwise(
    method, choice, lowest, highest, clothes, fresh_accelerator
):
    recipe = load_recipe(flags(clothes, method, *choice))
    splits, accelerator = open_splits(recipe), start_accelerator(recipe)
    training = build_training(recipe, splits, accelerator, 0, None)
    assert lowest <= teacher_top1(training) <= highest
    batch = training.loader.peek()
    losses = training.task(batch.views, batch.target) if method == "dccd" else None
    assert losses is None or losses["loss"].isfinite()  # the contrast of maps of different grids
    training.loader.close()


def test_a_run_says_what_its_teacher_is_fed_and_reports_it_there(clothes, tmp_path, fresh_accelerator, capsys):
    train_main(flags(clothes, "dccd", "--output", tmp_path, "--experiment", "run"))
    shown = capsys.readouterr().out
    assert "the teacher sees 1x56x56, resized from 32x32" in shown
    report = Report.read(tmp_path / "run")
    assert report.teacher.top1 >= 85
    right = sum(row.teacher * row.images for row in report.classes.per_class) / 200
    assert right == pytest.approx(report.teacher.top1, abs=0.01)
    before = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    redraw(tmp_path / "run", None, HubPublisher)
    assert json.loads((tmp_path / "run" / "report" / "report.json").read_text()) == before


def test_a_teacher_of_the_students_size_sees_the_views_as_they_are(clothes, fresh_accelerator):
    recipe = load_recipe(flags(clothes, "logit", size=(1, 56, 56)))
    training = build_training(recipe, open_splits(recipe), start_accelerator(recipe), 0, None)
    images = torch.randn(2, 1, 56, 56)
    assert training.teacher.conversions((1, 56, 56)) == ""
    assert torch.equal(training.teacher.adapt(images), images)
    training.loader.close()


@pytest.mark.parametrize(("choice", "lowest", "highest"), [([], 85, 100), (["--teacher-img-size", "student"], 0, 50)])
def test_validate_feeds_the_teacher_likewise(choice, lowest, highest, clothes, tmp_path, fresh_accelerator):
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    config = dict(input_size=(1, 32, 32), mean=(0.286,), std=(0.353,), interpolation="bilinear", crop_pct=1.0)
    save_for_hf(model, tmp_path, data_config=config)
    options = ["--dataset", f"hfids/{clothes}", "--split", "test", "--teacher", TEACHER, "-j", "0", "--device", "cpu"]
    results = validate(load_validation([f"local-dir:{tmp_path}", *options, *choice]))
    assert lowest <= results["teacher_top1"] <= highest


@pytest.mark.parametrize("method", ["dccd", "logit", "none"])
def test_a_network_of_one_size_is_refused_another(method, clothes, tmp_path, fresh_accelerator):
    arguments = dict(img_size=64, depth=1)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **arguments)
    config = dict(input_size=(1, 64, 64), mean=(0.5,), std=(0.5,))
    save_for_hf(vit, tmp_path, data_config=config, model_args=arguments)
    recipe = load_recipe(
        flags(clothes, method, "--kd-model-name", f"local-dir:{tmp_path}", "--kd-teacher-img-size", "student")
    )
    with pytest.raises(UserError, match="VisionTransformer does not take images of 32x32"):
        build_training(recipe, open_splits(recipe), start_accelerator(recipe), 0, None)


@pytest.mark.parametrize("value", ["large", "0", "-1", "1.5"])
def test_other_sizes_are_refused(value, clothes):
    with pytest.raises(UserError, match="must be one of own, student, or a number of pixels"):
        load_recipe(flags(clothes, "logit", "--kd-teacher-img-size", value))
