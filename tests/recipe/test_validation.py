"""validate.py's settings: the same parts as a training's, and a model to evaluate."""

import dataclasses

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import Device, Images, Network, Recipe, Validation, load_validation


def test_it_shares_its_parts_with_a_training():
    for part in (Images, Network, Device):
        assert issubclass(Recipe, part) and issubclass(Validation, part)
    validation, recipe = ({f.name: f for f in dataclasses.fields(c)} for c in (Validation, Recipe))
    shared = validation.keys() & recipe.keys()
    assert {"data_dir", "workers", "seed", "mean", "amp", "torchcompile", "model_kwargs"} <= shared
    differ = {name for name in shared if validation[name].metadata != recipe[name].metadata}
    assert differ == {"batch_size", "model", "pretrained", "in_chans"}  # timm's validate.py has its own


def test_it_takes_a_run_an_export_or_a_name(tmp_path):
    best = tmp_path / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text("{}")
    for model in (tmp_path / "run", best, f"local-dir:{best}"):
        assert load_validation([str(model)]).model == f"local-dir:{best}"
        assert load_validation(["--model", str(model)]).model == f"local-dir:{best}"
        assert load_validation(["--model", "x", "--teacher", str(model)]).teacher == f"local-dir:{best}"
    options = load_validation(["/data/imagenet", "--model", "resnet18"])
    assert (options.model, options.data_dir) == ("resnet18", "/data/imagenet")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no model"),
        (["--modle", "x"], "did you mean --model"),
        (["--model", "x", "--real-labels", "f"], "is refused"),
        (["--model", "x", "--native-amp"], "--native-amp is refused: .* use --amp"),
        (["--model", "x", "--amp-impl", "apex"], "--amp-impl is refused: --amp is PyTorch's own"),
        (["--model", "x", "--teacher-checkpoint", "f"], "teacher_checkpoint has no effect: there is no --teacher"),
        (["--model", "x", "--use-ema"], "use_ema has no effect: there is no --checkpoint"),
        (["--model", "x", "--amp-dtype", "bfloat16"], "amp_dtype has no effect: amp is off"),
        (["hf-hub:a/b", "--checkpoint", "f"], "brings its own weights"),
        (["hf-hub:a/b", "--model", "x"], "name two of them"),
        (["out/run", "--data-dir", "x"], "out/run holds no run and no exported model"),
    ],
)
def test_mistakes(argv, message):
    with pytest.raises(UserError, match=message):
        load_validation(argv)


def test_flags_of_timms_that_are_taken_over(caplog):
    assert load_validation(["--model", "x", "--log-freq", "20"]).model == "x"
    assert "--log-freq is taken over" in caplog.text
