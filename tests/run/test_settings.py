"""Settings beside those that a run was saved with: which may change is declared with each option."""

import dataclasses
import json

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, load_recipe
from dccd_timm.recipe.option import option_of
from dccd_timm.recipe.plan import Plan
from dccd_timm.run.settings import (
    changes_score,
    describe_flags,
    find_changes,
    optim_before,
    plain_settings,
    refuse_changes,
)


def changes(before, after):
    saved = json.loads(json.dumps(plain_settings(load_recipe(before.split()))))
    return find_changes(saved, load_recipe(after.split()))


@pytest.mark.parametrize(
    "after",
    [
        "-j 9 --log-interval 3 --checkpoint-hist 2 --output elsewhere --experiment other --torchcompile",
        "--push-to-hub a/b --hub-public --pin-mem --device cpu --recovery-interval 7 --max-data-errors 5",
        "--resume there --no-resume-opt",
        "--model-kwargs layers=(1,1,1)",
    ],
)
def test_what_cannot_change_a_training_passes(after):
    assert changes("--model-kwargs layers=(1,1,1)" if "kwargs" in after else "", after) == {}


def test_what_changes_it_is_found_by_name():
    found = changes("--lr 0.1 --epochs 2", "--lr 0.05 --epochs 4 --mixup 0.2 --smoothing 0")
    assert found == {"lr": [0.1, 0.05], "epochs": [2, 4], "mixup": [0.0, 0.2], "smoothing": [0.1, 0.0]}
    flags = {"--lr 0.1 -> 0.05", "--epochs 2 -> 4", "--mixup 0 -> 0.2", "--smoothing 0.1 -> 0"}
    assert set(describe_flags(found).split(", ")) == flags
    assert find_changes({"a_setting_of_tomorrow": 1}, load_recipe([])) == {}  # of another version


@pytest.mark.parametrize(
    ("after", "flag"),
    [
        ("--model resnet18", "--model resnet50 -> resnet18"),
        ("--opt adamw", "--opt sgd -> adamw.*--no-resume-opt"),
        ("--kd-model-name resnet18 --kd-distill-type logit", "--kd-distill-type none -> logit"),
        ("--pretrained", "--pretrained False -> True"),
        ("--model-kwargs depth=3", "--model-kwargs"),
    ],
)
def test_what_a_training_cannot_go_on_with_is_refused_by_its_flag(after, flag):
    with pytest.raises(UserError, match=flag):
        refuse_changes(changes("", after), load_recipe(after.split()))


def test_another_optimizer_may_begin_without_the_old_ones_state():
    flags = "--opt adamw --resume run --no-resume-opt"
    refuse_changes(changes("", flags), load_recipe(flags.split()))


@pytest.mark.parametrize(
    ("after", "validates", "changed"),
    [("--lr 0.3", True, False), ("--crop-pct 0.9", True, True), ("--eval-metric loss", True, True),
     ("--data-dir there", True, True), ("--smoothing 0", True, False), ("--smoothing 0", False, True),
     ("--epochs 9", False, False)],
)  # fmt: skip
def test_a_score_counts_while_it_is_measured_alike(after, validates, changed):
    assert changes_score(changes("", after), validates) is changed


def test_the_optimizers_options_before_the_changes():
    after = "--lr 0.3 --opt-betas 0.8 0.9 --epochs 9"
    before = optim_before(changes("--lr 0.1 --opt-betas 0.9 0.99", after), load_recipe(after.split()))
    assert (before.lr, before.opt_betas, before.epochs) == (0.1, (0.9, 0.99), 300)


def test_every_option_says_what_a_change_of_it_means():
    once = {f.name for f in dataclasses.fields(Recipe) if option_of(f).resume == "once"}
    assert once == {"resume", "no_resume_opt", "start_epoch", *(f.name for f in dataclasses.fields(Plan))}
