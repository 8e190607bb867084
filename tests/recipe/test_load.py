"""Recipes and flags: what is decided, what is refused, and in which words."""

import dataclasses

import pytest
import yaml

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, load_recipe, load_validation

DCCD = ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd"]


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_command_line_beats_recipe_beats_default(tmp_path):
    path = write(tmp_path, "epochs: 7\nlr: 0.5\nmodel_ema: true\ninput-size: [1, 28, 28]\n")
    recipe = load_recipe(["-c", path, "--lr", "0.25", "--no-model-ema"])
    assert (recipe.epochs, recipe.lr, recipe.model_ema, recipe.batch_size) == (7, 0.25, False, 128)
    assert (recipe.input_size, recipe.in_chans) == ((1, 28, 28), 1)


def test_yaml_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    recipe = load_recipe(["-c", write(tmp_path, "lr: 1e-3\nweight_decay: 5e-4\nepochs: 3.0\nscale: [0.5, 1]\n")])
    assert (recipe.lr, recipe.weight_decay, recipe.epochs, recipe.scale) == (1e-3, 5e-4, 3, (0.5, 1.0))


def test_views_follow_the_method():
    assert load_recipe(DCCD).dccd_views == 2
    assert load_recipe(["--kd-model-name", "resnet18"]).dccd_views == 1
    assert load_recipe(["--dccd-views", "2"]).dccd_views == 2


def test_without_a_teacher_timms_default_method_means_none():
    assert load_recipe([]).kd_distill_type == "none"
    assert load_recipe(["--kd-model-name", "resnet18"]).kd_distill_type == "logit"


def test_a_recipe_for_dccd_can_be_switched_to_another_method_and_its_args_run_again(tmp_path):
    text = (
        "kd_model_name: resnet18\nkd_distill_type: dccd\ndccd_views: 2\ndccd_contrast_weight: 0.7\nkd_temperature: 3\n"
    )
    recipe = load_recipe(["-c", write(tmp_path, text), "--kd-distill-type", "none"])
    assert (recipe.kd_distill_type, recipe.dccd_views) == ("none", 2)
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(recipe).items()}
    path = write(tmp_path, yaml.safe_dump(settings | {"versions": {"timm": "1"}}))
    assert load_recipe(["-c", path]) == recipe


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe([]).lr = 3
    assert {f.name for f in dataclasses.fields(Recipe)} >= {"lr", "dccd_views"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--lrr 0.5", "unknown flag --lrr; did you mean --lr"),
        ("--dccd-contrast-wait 1", "did you mean --dccd-contrast-weight"),
        ("--epochs ten", "--epochs: needs a whole number, got 'ten'"),
        ("--epochs 2.5", "--epochs: needs a whole number"),
        ("--epochs 0", "--epochs: must be at least 1"),
        ("--hflip 1.5", "--hflip: must be at most 1"),
        ("--lr nan", "finite"),
        ("--clip-mode soft --clip-grad 1", "must be one of norm, value, agc"),
        ("--kd-distill-type magic", "must be one of none, logit, feature, token, dccd"),
        ("--kd-distill-type dccd", "needs a teacher: set kd_model_name"),
        ("--input-size 3 224", "expected 3 arguments"),
        ("--model-kwargs layers", "key=value"),
        ("--mean 0.5 0.5", "mean needs 1 or 3 values"),
        ("--in-chans 1 --input-size 3 32 32", "contradicts input_size"),
        ("--img-size 64 --input-size 3 32 32", "give one of them"),
        ("--mixup 0.2 -b 31", "batch_size 31 must be even"),
        ("--resume auto", "needs --experiment"),
        ("--reprob 0.2 --resplit", "set dccd_views to 2"),
        ("stray --lr 1 stray2", "unexpected stray2"),
        # dead knobs
        ("--model-ema-decay 0.9", "no effect: model_ema is off"),
        ("--dccd-contrast-temperature 0.2", "no effect: only kd_distill_type dccd reads it"),
        ("--kd-temperature 2", "no effect"),
        (
            "--kd-distill-type dccd --kd-model-name resnet18 --dccd-contrast-negatives student --dccd-contrast-direction student",
            "no effect: among a student's own channels both are the same",
        ),
        ("--kd-teacher-checkpoint x.safetensors", "no effect: no teacher is named"),
        ("--amp-dtype bfloat16", "no effect: amp is off"),
        ("--mixup-prob 0.5", "no effect: mixup and cutmix are off"),
        ("--remode const", "no effect: reprob is 0"),
        ("--lr 0.1 --lr-base 0.2", "no effect: lr overrides it"),
        ("--clip-mode agc", "no effect: clip_grad is not set"),
        ("--no-aug --aa 3a", "no effect: no_aug"),
        ("-c nowhere.yaml", "recipe nowhere.yaml cannot be read: No such file"),
    ],
)
def test_mistakes_on_the_command_line(argv, words):
    with pytest.raises(UserError) as caught:
        load_recipe(argv.split())
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--dccd-views 1", "dccd_difference_weight 0.1 needs two views"),
        ("--dccd-difference-views 0 2", "must be two different views below 2"),
        ("--dccd-contrast-weight 0 --dccd-contrast-where pooled", "no effect: dccd_contrast_weight is 0"),
        ("--dccd-difference-weight 0 --dccd-difference-loss mse", "no effect: dccd_difference_weight is 0"),
        ("--dccd-difference-loss mse --dccd-difference-temperature 2", "mse has no temperature"),
        ("--kd-model-name hf-hub:a/b --kd-teacher-checkpoint x.pth", "brings its own weights"),
        ("--dccd-control dccd", "must be one of"),
    ],
)
def test_mistakes_of_a_distillation(argv, words):
    with pytest.raises(UserError) as caught:
        load_recipe([*DCCD, "--dccd-difference-weight", "0.1", *argv.split()])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 0.5", "unknown key lrr; did you mean lr?"),
        ("epochs: [1, 2]", "epochs: needs one a whole number"),
        ("model_ema: maybe", "model_ema: needs true or false, got 'maybe'"),
        ("model_ema: 1", "model_ema: needs true or false"),
        ("lr: true", "lr: needs a number, got True"),
        ("model: [a]", "model: needs one text"),
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


def test_validation_takes_a_run_an_export_or_a_name(tmp_path):
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text("{}")
    for word in (tmp_path / "run", best, f"local-dir:{best}"):
        assert load_validation([str(word)]).model == f"local-dir:{best}"
        assert load_validation(["--model", str(word)]).model == f"local-dir:{best}"
    options = load_validation(["/data/imagenet", "--model", "resnet18"])
    assert (options.model, options.data_dir) == ("resnet18", "/data/imagenet")
    for argv, words in (
        ([], "no model"),
        (["--modle", "x"], "did you mean --model"),
        (["--model", "x", "--real-labels", "f"], "is refused"),
        (["--model", "x", "--teacher-checkpoint", "f"], "teacher_checkpoint has no effect: there is no --teacher"),
        (["hf-hub:a/b", "--checkpoint", "f"], "brings its own weights"),
    ):
        with pytest.raises(UserError, match=words):
            load_validation(argv)
