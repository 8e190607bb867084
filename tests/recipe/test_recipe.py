"""A Recipe is the sum of its parts, and frozen."""

import dataclasses

import pytest

from dccd_timm.recipe import Augment, Data, Device, Distil, Hub, Optim, Recipe, Run, Student, load_recipe
from dccd_timm.recipe.plan import Plan


def test_a_recipe_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_recipe([]).lr = 3


def test_a_recipe_is_its_parts_and_no_field_stands_in_two():
    parts = (Data, Student, Distil, Optim, Augment, Run, Hub, Device, Plan)
    names = [f.name for part in parts for f in dataclasses.fields(part)]
    assert {f.name for f in dataclasses.fields(Recipe)} == set(names)
    # a student has one number of channels, which its images are read in
    assert sorted({name for name in names if names.count(name) > 1}) == ["in_chans"]
    assert all(isinstance(load_recipe([]), part) for part in parts)


def test_args_yaml_begins_with_the_data():
    names = [f.name for f in dataclasses.fields(Recipe)]
    assert names[0] == "data_dir"
    order = [names.index(name) for name in ("dataset", "model", "kd_model_name", "opt", "mixup", "output", "device")]
    assert order == sorted(order)
