"""Recipe file and flags: which one wins, what args.yaml gives back, how mistakes in a file are reported."""

import dataclasses

import pytest
import yaml

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.recipe.mistakes import DCCD, assert_refused


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_beats_recipe_beats_default(tmp_path):
    path = write(tmp_path, "epochs: 7\nlr: 0.5\nmodel_ema: true\ninput-size: [1, 28, 28]\n")
    recipe = load_recipe(["-c", path, "--lr", "0.25", "--no-model-ema"])
    assert (recipe.epochs, recipe.lr, recipe.model_ema, recipe.batch_size) == (7, 0.25, False, 128)
    assert (recipe.input_size, recipe.in_chans) == ((1, 28, 28), 1)


def test_a_recipe_for_dccd_can_be_switched_to_another_method_and_its_args_run_again(tmp_path):
    text = (
        "kd_model_name: resnet18\nkd_distill_type: dccd\ndccd_views: 2\ndccd_contrast_weight: 0.7\nkd_temperature: 3\n"
    )
    recipe = load_recipe(["-c", write(tmp_path, text), "--kd-distill-type", "none"])
    assert (recipe.kd_distill_type, recipe.dccd_views) == ("none", 2)
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    path = write(tmp_path, yaml.safe_dump(settings | {"versions": {"timm": "1"}}))
    assert load_recipe(["-c", path]) == recipe


@pytest.mark.parametrize("flags", ["", "--dccd-views 3", DCCD, f"{DCCD} --dccd-view-aug near", "--in-chans 1"])
def test_what_was_decided_runs_again_from_args_yaml(flags, tmp_path):
    recipe = load_recipe(flags.split())
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    assert None not in (recipe.dccd_views, recipe.dccd_difference_views, recipe.in_chans)
    assert load_recipe(["-c", write(tmp_path, yaml.safe_dump(settings))]) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 0.5", "unknown key lrr; did you mean lr?"),
        ("epochs: [1, 2]", "epochs: needs a whole number and not a list of 2, got [1, 2]: give one"),
        ("model_ema: maybe", "model_ema: needs true or false, got 'maybe'"),
        ("model_ema: 1", "model_ema: needs true or false"),
        ("lr: true", "lr: needs a number, got True"),
        ("model: [a]", "model: needs text and not a list of 1, got ['a']: write 'a' without the brackets"),
        ("- a\n- b", "must be a mapping"),
        ("a: [", "is no YAML"),
        ("torchscript: true", "torchscript is refused"),
        ("kd_temperature: 2", "kd_temperature has no effect"),
        ("lrr: 1\nepochs: x\nhflip: 3", "3 mistakes"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        load_recipe(["-c", write(tmp_path, text)])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there():
    assert_refused("-c nowhere.yaml", "recipe nowhere.yaml cannot be read: No such file")


def test_a_positional_data_folder_is_read_as_timm_did(caplog):
    assert load_recipe(["/data/imagenet"]).data_dir == "/data/imagenet"
    assert "read as --data-dir /data/imagenet" in caplog.text
