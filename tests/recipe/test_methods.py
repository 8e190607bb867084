"""The table of methods is the only one: what a method is called and made of follows from its row."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.methods import METHODS


def test_each_method_trains_a_task_and_only_none_has_no_teacher():
    assert [name for name, method in METHODS.items() if not method.distills] == ["none"]
    assert all(name == method.name and method.terms[0] == "task_loss" for name, method in METHODS.items())
    assert METHODS["none"].student_label("kl") == "student without distillation"
    assert METHODS["logit"].student_label("kl") == "student by KD on logits"
    assert METHODS["logit"].student_label("dkd") == "student by decoupled KD on logits"
    assert METHODS["dccd"].label_with("dist") == "DCCD with DIST"
    assert METHODS["feature"].label_with("dist") == "KD on features"


@pytest.mark.parametrize("name", METHODS)
def test_the_flag_takes_each_and_asks_for_a_teacher(name):
    assert load_recipe(["--kd-distill-type", name, "--kd-model-name", "resnet18"]).kd_distill_type == name
    if METHODS[name].distills and name != "logit":  # timm's default, which means none without a teacher
        with pytest.raises(UserError, match="needs a teacher"):
            load_recipe(["--kd-distill-type", name])


@pytest.mark.parametrize("name", [name for name in METHODS if name != "dccd"])
def test_each_other_method_can_be_the_control(name):
    flags = ["--kd-distill-type", "dccd", "--kd-model-name", "resnet18", "--dccd-control", name]
    assert load_recipe(flags).dccd_control == (name,)
