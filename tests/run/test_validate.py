"""A validation in this process; what a user types and reads is in tests/programs."""

import csv
import json

import pytest
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_validation
from dccd_timm.run.validate import validate


@pytest.fixture
def models(tmp_path):
    """Two students with random weights, as runs export them."""
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        model = timm.create_model("test_resnet", num_classes=3)
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
