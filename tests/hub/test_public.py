"""Settings that may be shown: enough to train again, and nothing of who trained where."""

import json
import os
import socket
from pathlib import Path

import pytest

from dccd_timm.hub.public import changed_settings, hub_data, public_settings, scrubbed
from dccd_timm.recipe import load_recipe
from dccd_timm.recipe.rules import defaults


@pytest.mark.parametrize(
    ("key", "value", "shown", "noted"),
    [
        ("dataset", "hfids/ILSVRC/imagenet-1k", "hfids/ILSVRC/imagenet-1k", False),
        ("dataset", "hfids/recipes/quickstart/fashion-mnist", "hfids/recipes/quickstart/fashion-mnist", True),
        ("dataset", "hfids//home/alice/flowers", "hfids/flowers", True),
        ("dataset", "hfids/../alice/flowers", "hfids/flowers", True),
        ("dataset", "hfids/work/of/alice/flowers", "hfids/flowers", True),
        ("dataset", "torch/cifar10", "torch/cifar10", False),
        ("data_dir", "/home/alice/imagenet", "imagenet", True),
        ("kd_model_name", "resnet34.tv_in1k", "resnet34.tv_in1k", False),
        ("kd_model_name", "hf-hub:alice/teacher", "hf-hub:alice/teacher@c0ffee", False),
        ("kd_model_name", "hf-hub:alice/teacher@v1", "hf-hub:alice/teacher@v1", False),
        ("kd_model_name", "local-dir:recipes/quickstart/teacher", "local-dir:recipes/quickstart/teacher", True),
        ("kd_model_name", "local-dir:/home/alice/run/best", "resnet50", True),
        ("initial_checkpoint", "/home/alice/a.safetensors", "a.safetensors", True),
        ("initial_checkpoint", "hf-hub:alice/start", "hf-hub:alice/start", False),
        ("device_modules", ["/home/alice/my_models.py", "plugin"], ["my_models.py", "plugin"], True),
        ("device_modules", [], [], False),
        ("model_kwargs", {"weights": "/home/alice/w.bin"}, {"weights": "w.bin"}, False),
        ("input_key", "hf_abcdefghijklmnop", "hf_...", False),
    ],
)
def test_places_become_names(key, value, shown, noted):
    pins = {"kd_model_name": "c0ffee"}
    settings, notes = public_settings(defaults() | {key: value}, {"kd_model_name": "resnet50"}, pins)
    assert settings[key] == shown
    assert bool(notes) is noted


def test_where_a_run_was_kept_is_left_out():
    words = dict(output="/home/alice/out", experiment="secret", wandb_project="secret", push_to_hub="alice/x")
    settings, _ = public_settings(defaults() | words, {}, {})
    assert not set(words) & set(settings)


def test_home_and_host_are_taken_out_of_texts():
    text = f"{Path.home()}/x.png: cannot be read on host-{socket.gethostname()}"
    assert str(Path.home()) not in scrubbed(text)
    assert scrubbed({"a": ["/tmp/b/c.png", 3]}) == {"a": ["c.png", 3]}


def test_a_public_recipe_loads_to_the_same_settings(tmp_path):
    import yaml

    words = ["-c", "recipes/quickstart.yaml", "--dccd-view-aug", "near", "--opt-betas", "0.9", "0.99", "--epochs", "7"]
    settings = vars(load_recipe(words))
    shown, _ = public_settings(settings, {}, {})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(changed_settings(shown)))
    assert vars(load_recipe(["-c", str(tmp_path / "recipe.yaml")])) == settings


def test_a_public_recipe_does_not_rely_on_defaults_that_may_change():
    shown = changed_settings(vars(load_recipe(["--kd-model-name", "resnet18", "--kd-distill-type", "dccd"])))
    assert shown["dccd_contrast_weight"] == defaults()["dccd_contrast_weight"]
    assert shown["dccd_view_aug"] == ("same",) and "dccd_near_noise" not in shown  # which nothing reads
    shown = changed_settings(vars(load_recipe(["--kd-model-name", "resnet18", "--kd-distill-type", "logit"])))
    assert "dccd_contrast_weight" not in shown


def test_only_hub_ids_are_data_of_the_hub(tmp_path, monkeypatch):
    assert hub_data("hfids/uoft-cs/cifar10") == "uoft-cs/cifar10"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "data").mkdir(parents=True)
    assert hub_data("hfids/my/data") is None and hub_data("torch/cifar10") is None and hub_data("") is None


def test_names_that_are_no_utf_8_can_be_published():
    folder = os.fsdecode(b"/data/caf\xe9")
    shown, notes = public_settings({"data_dir": folder, "experiment": folder, "aa": folder}, {}, {})
    text = json.dumps(shown, ensure_ascii=False) + "".join(notes)
    assert text.encode() and shown["data_dir"] == "caf?" and "put yours instead of caf?" in notes[0]
