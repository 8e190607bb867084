"""A validation in this process; what a user types and reads is in tests/programs."""

import csv
import json
import shutil

import pytest
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_validation
from dccd_timm.run.validate import validate
from tests.conftest import CLASSES


@pytest.fixture
def models(tmp_path):
    """Two students with random weights, as runs export them."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=dict(input_size=(3, 48, 48)))
        with torch.no_grad():
            model.get_classifier().weight.mul_(20)
        save_for_hf(model, tmp_path / name)
    return tmp_path


def run(folders, models, *flags):
    common = ["--data-dir", folders, "--split", "validation", "--img-size", 48, "-b", 10, "-j", 0, "--device", "cpu"]
    return validate(load_validation([str(models / "first"), *map(str, (*common, *flags))]))


def test_the_result_is_timms_and_is_printed_and_written(folders, models, fresh_accelerator, capsys):
    result = run(folders, models, "--results-file", models / "r.json", "--results-format", "json")
    assert list(result)[:5] == ["model", "top1", "top1_err", "top5", "top5_err"]
    assert result["top1"] + result["top1_err"] == pytest.approx(100) and result["img_size"] == 48
    printed = json.loads(capsys.readouterr().out.split("--result\n")[1])
    assert printed == result == json.loads((models / "r.json").read_text())
    run(folders, models, "--results-file", models / "r.csv")
    (row,) = csv.DictReader((models / "r.csv").open())
    assert float(row["top1"]) == result["top1"]


def test_a_model_agrees_with_itself_and_has_its_own_accuracy(folders, models, fresh_accelerator):
    alone = run(folders, models)
    itself = run(folders, models, "--teacher", models / "first")
    assert itself["agreement"] == 100 and itself["teacher_top1"] == itself["top1"] == alone["top1"]
    other = run(folders, models, "--teacher", models / "second")
    assert other["agreement"] < 100 and other["top1"] == alone["top1"]


def test_a_missing_checkpoint_is_one_line(folders, models, fresh_accelerator):
    flags = ["--model", "test_resnet", "--num-classes", "3", "--checkpoint", models / "none.safetensors"]
    common = ["--data-dir", folders, "--split", "validation", "--device", "cpu"]
    with pytest.raises(UserError, match=r"checkpoint .*none\.safetensors does not exist"):
        validate(load_validation([*map(str, (*common, *flags))]))


def test_a_results_file_that_cannot_be_written_is_one_line(folders, models, fresh_accelerator):
    with pytest.raises(UserError, match="--results-file .* cannot be written"):
        run(folders, models, "--results-file", models / "none" / "r.csv")


def spoiled(folders, folder, classes):
    """The image folder with all validation images of these classes broken."""
    shutil.copytree(folders, folder)
    for name in classes:
        for path in (folder / "validation" / name).iterdir():
            path.write_bytes(b"<html>404</html>")
    return folder


def test_images_that_cannot_be_read_are_counted_in_the_result(folders, models, tmp_path, fresh_accelerator):
    data = spoiled(folders, tmp_path / "data", CLASSES[:2])
    whole, rest = run(folders, models), run(data, models)
    assert (whole["images"], whole["skipped"]) == (24, 0) and (rest["images"], rest["skipped"]) == (8, 16)
    with pytest.raises(UserError, match="16 images could not be read, more than --max-data-errors 15"):
        run(data, models, "--max-data-errors", 15)


def test_a_split_of_which_no_image_can_be_read_has_no_accuracy(folders, models, tmp_path, fresh_accelerator, capsys):
    data = spoiled(folders, tmp_path / "data", CLASSES)
    with pytest.raises(UserError, match=r"no image of the validation split could be read; the first: circle/0.png"):
        run(data, models)
    assert "--result" not in capsys.readouterr().out
