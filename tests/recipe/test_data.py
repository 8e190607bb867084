"""Splits and batches: what has no effect, and what is out of range."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe, load_validation
from tests.recipe.mistakes import assert_refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--val-split= --validation-batch-size 8", "no effect: val_split is empty"),
        ("--data-dir d --dataset hfids/owner/name", "data_dir has no effect: the images are those of dataset"),
        ("--data-dir d --dataset hfids/tests", "data_dir has no effect: the images are those of dataset"),
        ("--data-dir d --target-key species", "target_key has no effect: only hfids/, hfds/, tfds/, wds/ use it"),
        ("--data-dir d --dataset-revision v1", "dataset_revision has no effect: only hfids/, hfds/ use it"),
        ("--dataset hfids/tests --dataset-revision v1", "no effect: dataset is a folder, which has no revisions"),
        ("--data-dir d --dataset-config c", "dataset_config has no effect: only hfids/, hfds/ use it"),
        (
            "--dataset hfids/tests --dataset-download",
            "dataset_download has no effect: only torch/, hfds/, tfds/ use it",
        ),
        (
            "--data-dir d --dataset torch/cifar10 --class-map m.txt",
            "class_map has no effect: only image folders, hfids/",
        ),
        ("--data-dir d --train-num-samples 9", "train_num_samples has no effect: only hfids/, wds/, tfds/ use it"),
        ("--dataset hfids/tests --val-split= --val-num-samples 9", "val_num_samples has no effect: val_split is empty"),
        ("--data-errors raise --max-data-errors 9", "no effect: data_errors raise stops at the first"),
        ("--train-batches-per-epoch 9 --epoch-repeats 2", "no effect: train_batches_per_epoch fixes the epoch"),
        ("--data-dir=", "--data-dir is empty, and there is none to unset"),
        ("d --data-dir e", "d and --data-dir e name two data folders: give one"),
        ("--data-errors ignore", "must be one of skip, raise"),
        ("--data-timeout 0", "must be at least 1"),
        ("--mixup 0.2 -b 31", "batch_size 31 must be even"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


STREAM = """
dataset: hfids/owner/clothes
dataset_config: small
dataset_revision: v1
input_key: photo
target_key: species
val_split: test
num_classes: 10
train_num_samples: 99
epochs: 7
"""


@pytest.mark.parametrize("origin", ["hfids/owner/clothes", "hfds/owner/clothes"])
@pytest.mark.parametrize(("folder", "val_split"), [("validation", "validation"), ("test", "test")])
def test_a_data_dir_alone_takes_the_place_of_a_recipes_stream(tmp_path, origin, folder, val_split, caplog):
    caplog.set_level("INFO")
    recipe, images = tmp_path / "r.yaml", tmp_path / "images"
    text = STREAM.replace("hfids/owner/clothes", origin)
    if origin.startswith("hfds"):  # timm's reader has none of these
        text = "\n".join(line for line in text.splitlines() if "dataset_" not in line and "num_samples" not in line)
    recipe.write_text(text)
    (images / folder).mkdir(parents=True)
    settings = load_recipe(["-c", str(recipe), "--data-dir", str(images)])
    assert (settings.data_dir, settings.dataset, settings.val_split) == (str(images), "", val_split)
    assert (settings.input_key, settings.target_key, settings.num_classes) == (None, None, None)
    assert (settings.train_num_samples, settings.dataset_revision, settings.epochs) == (None, None, 7)
    assert f"--data-dir {images} takes the place of the recipe's data set: without its dataset, " in caplog.text


def test_a_data_dir_that_a_recipes_data_set_uses_stays_beside_it(tmp_path, caplog):
    caplog.set_level("INFO")
    recipe = tmp_path / "r.yaml"
    (tmp_path / "clothes").mkdir()
    for dataset in ("hfids/clothes", "torch/cifar10"):
        recipe.write_text(f"dataset: {dataset}")
        settings = load_recipe(["-c", str(recipe), "--data-dir", str(tmp_path)])
        assert (settings.dataset, settings.data_dir) == (dataset, str(tmp_path))
    assert "is the folder of the recipe's data set torch/cifar10" in caplog.text


def test_a_recipe_of_two_data_sets_is_refused_and_the_command_line_chooses_one(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data_dir: images\ndataset: hfids/owner/clothes")
    with pytest.raises(UserError, match="data_dir has no effect: the images are those of dataset"):
        load_recipe(["-c", str(recipe)])
    recipe.write_text("data_dir: images")
    settings = load_recipe(["-c", str(recipe), "--dataset", "hfids/owner/clothes"])
    assert (settings.dataset, settings.data_dir) == ("hfids/owner/clothes", None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["d", "--dataset", "hfids/owner/name"], "data_dir has no effect"),
        (["--data-dir", "d", "--num-samples", "3"], "num_samples has no effect: only hfids/, wds/, tfds/ use it"),
        (["--data-dir", "d", "--results-format", "json"], "results_format has no effect: results_file is not set"),
    ],
)
def test_validation_has_the_same_rules(flags, message):
    with pytest.raises(UserError, match=message):
        load_validation(["--model", "resnet18", *flags])
