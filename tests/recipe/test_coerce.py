"""Texts and YAML values become what the annotation says, or one line says what was expected."""

import dataclasses

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.coerce import coerce
from tests.recipe.mistakes import assert_refused

FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("lr", "1e-3", 1e-3),  # YAML 1.1 reads it as text
        ("weight_decay", "5e-4", 5e-4),
        ("epochs", 3.0, 3),
        ("scale", [0.5, 1], (0.5, 1.0)),
        ("scale", "(0.5, 1)", (0.5, 1.0)),
        ("lr", "", None),
        ("dccd_views", None, None),  # to be decided
        ("epochs", None, 300),
        ("wandb_tags", "one", ("one",)),
        ("cutmix_minmax", [], None),
        ("model_kwargs", ["a=1", "b=(1, 2)", "c=text"], {"a": 1, "b": (1, 2), "c": "text"}),
        ("model_kwargs", {"a": 1}, {"a": 1}),
        ("clip_mode", "agc", "agc"),
        ("lr_base_scale", "sqrt", "sqrt"),
        ("model", 50, "50"),
    ],
)
def test_values(name, value, wanted):
    found = coerce(FIELDS[name], value)
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--epochs ten", "--epochs: needs a whole number, got 'ten'"),
        ("--epochs 2.5", "--epochs: needs a whole number"),
        ("--epochs 0", "--epochs: must be at least 1"),
        ("--hflip 1.5", "--hflip: must be at most 1"),
        ("--lr nan", "finite"),
        ("--clip-mode soft --clip-grad 1", "must be one of norm, value, agc"),
        ("--dist-bn sum", "must be one of broadcast, reduce, got 'sum'"),
        ("--model-kwargs layers", "key=value"),
        ("--model-kwargs =3", "--model-kwargs: needs key=value"),
        ("--model-kwargs layers=(1,2", "--model-kwargs: (1,2 is no value: check its brackets"),
        ("--std 0.2 0 0.2", "--std: must be at least 1e-06"),
        ("--crop-pct 0", "--crop-pct: must be at least 0.001"),
        ("--interpolation bilinar", "--interpolation: must be one of nearest, bilinear, bicubic"),
        ("--train-interpolation any", "--train-interpolation: must be one of random, nearest"),
        ("--mean [0.1,a]", "--mean: [0.1,a] is no value"),
    ],
)
def test_mistakes(flags, message):
    assert_refused(flags, message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", [0.1], "needs a number and not a list of 1, got [0.1]: write 0.1 without the brackets"),
        ("model", ["a", "b"], "needs text and not a list of 2, got ['a', 'b']: give one"),
        ("amp", [True], "needs true or false and not a list of 1, got [True]: write True without the brackets"),
        ("epochs", {"first": 1}, "needs a whole number and not a mapping"),
        ("scale", "(0.5, 1", "(0.5, 1 is no value"),
        ("model_kwargs", "layers", "needs key=value, got 'layers'"),
        ("model_kwargs", ["a={1", "b=2"], "{1 is no value"),
    ],
)
def test_lists_mappings_and_texts_where_others_are_wanted_in_a_recipe(name, value, message):
    with pytest.raises(UserError) as caught:
        coerce(FIELDS[name], value)
    assert message in str(caught.value)


def test_a_wrong_number_of_values():
    with pytest.raises(UserError, match="needs 3 values, got 2"):
        coerce(FIELDS["input_size"], [3, 224])
