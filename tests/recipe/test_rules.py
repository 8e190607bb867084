"""What is decided for the user, and that a setting without effect goes back to its default."""

import pytest
import torch
from timm.scheduler import create_scheduler_v2

from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe, Validation, load_recipe
from dccd_timm.recipe.rules import advice, contradictions, defaults, ineffective, no_effect, resolve
from tests.recipe.mistakes import assert_refused


def test_nothing_stays_undecided():
    values = resolve({})
    assert (values["dccd_views"], values["dccd_difference_views"], values["in_chans"]) == (1, (0, 1), 3)
    assert resolve({"input_size": (1, 28, 28)})["in_chans"] == 1
    assert resolve({"dccd_view_aug": ("strong", "weak", "near:1")})["dccd_views"] == 3


def test_what_has_no_effect_gets_its_default():
    values = resolve({"kd_temperature": 2.0, "remode": "const", "lr": 0.1, "lr_base": 0.3})
    assert (values["kd_temperature"], values["remode"], values["lr_base"]) == (4.0, "pixel", 0.1)


def test_defaults_contradict_nothing():
    assert contradictions(load_recipe([])) == []
    assert ineffective(Recipe, {}, defaults()) == []


def test_several_contradictions_are_named_at_once():
    assert_refused("--resume auto --mean 0.5 0.5 --split-bn", "3 mistakes")


@pytest.mark.parametrize("settings", [Recipe, Validation])
def test_the_reason_is_that_of_the_declaration(settings):
    values = defaults(settings)
    assert no_effect(settings, "amp_dtype", values) == "amp is off"
    assert no_effect(settings, "amp_dtype", values | {"amp": True}) is None
    assert ineffective(settings, {"amp_dtype": "bfloat16"}, ["amp_dtype"]) == ["amp_dtype has no effect: amp is off"]
    assert ineffective(settings, {"amp_dtype": "float16"}, ["amp_dtype"]) == []  # the default


def test_every_rule_can_be_asked_with_the_defaults():
    values = defaults()
    without_effect = [name for name in values if no_effect(Recipe, name, values)]
    assert {"hub_public", "model_ema_decay", "dccd_contrast_weight", "amp_dtype"} <= set(without_effect)
    assert not {"lr", "model", "dataset", "epochs", "dccd_views"} & set(without_effect)


@pytest.mark.parametrize("sched", ["cosine", "step", "multistep", "poly", "tanh", "plateau", "none"])
@pytest.mark.parametrize(("epochs", "warmup", "prefix"), [(3, 5, False), (5, 5, False), (90, 5, False), (3, 5, True)])
def test_a_warm_up_that_lasts_to_the_end_is_mentioned(sched, epochs, warmup, prefix):
    """Compared with the rates of timm's own scheduler."""
    flags = ["--sched", sched, "--epochs", str(epochs), "--warmup-epochs", str(warmup), "--lr", "0.1"]
    lines = list(advice(load_recipe([*flags, *["--warmup-prefix"] * prefix])))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, total = create_scheduler_v2(
        optimizer, sched, epochs, warmup_epochs=warmup, warmup_lr=1e-5, warmup_prefix=prefix, decay_epochs=90
    )
    rates = []
    for epoch in range(total):
        if scheduler:
            scheduler.step(epoch, 0.0)
        rates.append(optimizer.param_groups[0]["lr"])
    reached = max(rates) > 0.09
    assert bool(lines) is not reached
    assert reached or lines[0].startswith(f"{epochs} epochs end within the {warmup} epochs of warm-up")


def test_random_weights_of_a_model_that_has_some_are_mentioned(tmp_path):
    folder = f"local-dir:{tmp_path}"

    def lines(*flags):
        return [line for line in advice(load_recipe([*flags])) if "random" in line]

    assert lines("--model", folder) == []  # a configuration alone
    (tmp_path / "model.safetensors").touch()
    assert lines("--model", folder) == [
        f"{folder} has weights and the student starts from random ones: --pretrained starts from its own"
    ]
    assert len(lines("--model", "hf-hub:owner/name")) == 1
    assert lines("--model", "resnet18") == []  # timm's names are trained from scratch as a rule
    for known in (["--pretrained"], ["--initial-checkpoint", "x.pth"], ["--resume", "somewhere"]):
        assert lines("--model", folder, *known) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--no-aug --hflip 0.3", "hflip has no effect"),
        ("--no-aug --color-jitter 0.2", "color_jitter has no effect"),
        ("--no-aug --scale 0.5 1", "scale has no effect"),
        ("--no-aug --ratio 0.5 2", "ratio has no effect"),
        ("--no-aug --hflip 0 --color-jitter 0 --scale 1 1 --ratio 1 1", ""),
    ],
)
def test_augmentation_beside_no_aug_is_refused_unless_it_says_the_same(flags, said):
    if said:
        with pytest.raises(UserError, match=said):
            load_recipe(flags.split())
    else:
        load_recipe(flags.split())


@pytest.mark.parametrize(
    ("flags", "ignored"),
    [
        ("--opt adamw --momentum 0.8", True),
        ("--opt lookahead_adam --momentum 0.8", True),
        ("--opt sgd --momentum 0.8", False),
        ("--opt rmsproptf --momentum 0.8", False),
        ("--opt adamw --momentum 0.9", False),
    ],
)
def test_momentum_of_an_optimizer_without_is_warned_of(flags, ignored, caplog):
    load_recipe(flags.split())
    assert ("momentum has no effect" in caplog.text) == ignored
