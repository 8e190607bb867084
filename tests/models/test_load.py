"""Models by name: what is built, where weights come from, and one line for each failure."""

import json
import logging
import time

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.models import save_for_hf
from torch import nn

from dccd_timm import network
from dccd_timm.errors import UserError
from dccd_timm.models import load
from dccd_timm.models.load import checkpoint_file, create, create_sized, origin
from dccd_timm.models.student import build_student
from dccd_timm.models.teacher import load_teacher
from dccd_timm.recipe import load_recipe, load_validation
from dccd_timm.run.validate import _build_model
from tests.models.test_weights import POINTER
from tests.test_network import http_error


def test_sizes_reach_the_architectures_that_take_them():
    request = dict(in_chans=1, img_size=64, input_size=None)
    vit = create_sized("test_vit", "student", request, {}, num_classes=3, drop_rate=None)
    assert vit.num_classes == 3 and vit.patch_embed.img_size == (64, 64) and vit.patch_embed.proj.in_channels == 1
    assert create_sized("resnet10t", "student", request, {}, num_classes=3).conv1[0].in_channels == 1


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("resnet18s", {}, "student: timm has no model 'resnet18s'; did you mean resnet18"),
        ("resnet18", dict(layers="many"), "student resnet18 cannot be built"),
        ("local-dir:/no/such/folder", {}, "/no/such/folder"),
    ],
)
def test_failures_are_one_line(name, kwargs, message):
    with pytest.raises(UserError, match=message) as caught:
        create(name, "student", **kwargs)
    assert "\n" not in str(caught.value)


class Plain(nn.Module):
    """A network that somebody wrote for themselves."""

    def __init__(self, num_classes=10, **more):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, images):
        return self.fc(images.mean((2, 3))) if images.ndim == 4 else images.nothing


def fails():
    raise ZeroDivisionError("oops")


CFG = timm.models.PretrainedCfg(architecture="plain").to_dict()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda **_: Plain(), "plain has no pretrained_cfg, .*build_model_with_cfg"),
        (lambda **_: Plain(pretrained_cfg={}), "plain has no pretrained_cfg"),
        (lambda **_: Plain(pretrained_cfg=CFG), "plain has no num_classes: set self.num_classes"),
        (lambda **_: nn.Sequential(), "plain has no pretrained_cfg"),
        (lambda **_: None, "plain cannot be built: .*NoneType"),
        (lambda **_: fails(), r"plain cannot be built: ZeroDivisionError in fails \(test_load.py:\d+\): oops"),
        (lambda: Plain(), "plain cannot be built: .* unexpected keyword argument"),
    ],
)
def test_a_network_of_ones_own_that_lacks_something_is_one_line(build, message, monkeypatch):
    monkeypatch.setitem(timm.models._registry._model_entrypoints, "plain", build)
    with pytest.raises(UserError, match=message) as caught:
        create("plain", "student")
    assert "\n" not in str(caught.value)


def test_arguments_of_an_architecture_that_contradict_a_flag_are_refused():
    request = dict(in_chans=None, img_size=None, input_size=None)
    with pytest.raises(UserError, match="--model-kwargs num_classes=7 contradicts num_classes 3"):
        create_sized("test_resnet", "student", request, {"num_classes": 7}, num_classes=3)
    assert create_sized("test_resnet", "student", request, {"num_classes": 3}, num_classes=3).num_classes == 3


def test_a_folder_where_a_model_is_wanted_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name in (str(tmp_path / "images"), "images"):
        with pytest.raises(UserError, match=f"student: {name} is a folder: local-dir:{name} .* --data-dir {name}"):
            create(name, "student")
    (tmp_path / "test_resnet").mkdir()
    create("test_resnet", "student")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--initial-checkpoint missing.pth", "--initial-checkpoint missing.pth does not exist"),
        ("--initial-checkpoint junk.pth", "--initial-checkpoint junk.pth is no file of weights"),
        ("--initial-checkpoint other.pth", r"other.pth does not fit student \(--model\) test_resnet"),
        ("--pretrained-path missing.pth", "--pretrained-path missing.pth does not exist"),
        ("--pretrained-path .", "--pretrained-path . does not exist, or is no file"),
        ("--pretrained-path junk.pth", "--pretrained-path junk.pth is no file of weights"),
    ],
)
def test_weights_of_a_student_that_are_not_there_or_none_are_one_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "junk.pth").write_bytes(b"hello, world")
    torch.save(timm.create_model("test_vit").state_dict(), "other.pth")
    with pytest.raises(UserError, match=message) as caught:
        build_student(load_recipe(["--model", "test_resnet", *flags.split()]), 3)
    assert "\n" not in str(caught.value)


def test_the_file_of_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_for_hf(timm.create_model("test_vit"), tmp_path, safe_serialization=True)
    torch.save(timm.create_model("test_vit").state_dict(), "weights.pth")
    assert checkpoint_file(f"local-dir:{tmp_path}", "--initial-checkpoint") == f"{tmp_path}/model.safetensors"
    assert checkpoint_file("weights.pth", "--initial-checkpoint") == "weights.pth"
    assert checkpoint_file("", "--initial-checkpoint") == ""


def test_origins(tmp_path):
    model = timm.create_model("resnet18")
    assert origin("resnet18.a1_in1k", model) == {
        "name": "timm/resnet18.a1_in1k", "hub_id": "timm/resnet18.a1_in1k", "license": "apache-2.0",
    }  # fmt: skip
    assert origin("resnet18", model, pretrained=False) == {"name": "resnet18"}
    save_for_hf(timm.create_model("test_vit"), tmp_path, safe_serialization=True)
    folder = f"local-dir:{tmp_path}"
    assert origin(folder, timm.create_model(folder)) == {"name": "test_vit"}


@pytest.fixture
def folder(tmp_path):
    """An exported model."""
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path, safe_serialization=True)
    return tmp_path


@pytest.mark.parametrize(("content", "words"), [(POINTER, "pointer of Git LFS"), (None, "cut short or damaged")])
def test_weights_that_are_none_are_refused_wherever_they_are_named(folder, content, words):
    weights = folder / "model.safetensors"
    weights.write_bytes(content or weights.read_bytes()[:-10])
    name = f"local-dir:{folder}"
    data = ["--data-dir", str(folder)]
    for use in (
        lambda: create(name, "student", pretrained=True),
        lambda: checkpoint_file(name, "--initial-checkpoint"),
        lambda: load_teacher(name),
        lambda: load_teacher("test_resnet", str(weights)),
        lambda: build_student(load_recipe([*data, "--model", name, "--pretrained"]), 3),
        lambda: build_student(load_recipe([*data, "--model", "test_resnet", "--initial-checkpoint", name]), 3),
        lambda: build_student(load_recipe([*data, "--model", "test_resnet", "--initial-checkpoint", str(weights)]), 3),
        lambda: build_student(load_recipe([*data, "--model", "test_resnet", "--pretrained-path", str(weights)]), 3),
        lambda: _build_model(load_validation(["--model", name, *data])),
        lambda: _build_model(load_validation(["--model", "test_resnet", "--checkpoint", str(weights), *data])),
    ):
        with pytest.raises(UserError, match=words) as caught:
            use()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"architectures": ["ViTForImageClassification"]},
            r"of transformers \(ViTForImageClassification\), not of timm",
        ),
        ({"model_type": "vit"}, r"a model of transformers \(vit\)"),
        ({"hidden": 3}, "is no timm model: its config.json names no architecture"),
        (None, "its config.json cannot be read"),
    ],
)
def test_models_of_other_libraries_are_named(folder, config, words):
    (folder / "config.json").write_text(json.dumps(config) if config else "{broken")
    name = f"local-dir:{folder}"
    for use in (
        lambda: load_teacher(name),
        lambda: create_sized(name, "student", dict(in_chans=None, img_size=None, input_size=None), {}),
    ):
        with pytest.raises(UserError, match=words):
            use()


@pytest.mark.parametrize(
    ("error", "offline", "words"),
    [
        (http_error(401), False, "the token is not valid: run `hf auth login`"),
        (
            http_error(403, **{"X-Error-Message": "This model is disabled."}),
            False,
            "refuses it (This model is disabled)",
        ),
        (http_error(503), False, "check the name and the network"),
        (LocalEntryNotFoundError("cannot find the file in the local cache"), False, "check the name and the network"),
        (LocalEntryNotFoundError("check your connection"), True, "HF_HUB_OFFLINE is set, and the cache has no copy"),
    ],
    ids=repr,
)
def test_why_weights_could_not_be_downloaded(error, offline, words, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr(load, "check_reachable", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError) as caught:
        create("resnet18", "teacher", pretrained=True)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no.pth", "local-dir:nowhere"])
def test_a_file_of_weights_that_is_missing_is_named(name):
    with pytest.raises(UserError, match=r"--initial-checkpoint (no.pth|nowhere/model.safetensors) does not exist"):
        checkpoint_file(name, "--initial-checkpoint")


@pytest.mark.parametrize(
    ("name", "pretrained", "waits"),
    [("resnet18", True, True), ("resnet18", False, False), ("hf-hub:alice/x", False, True)],
)
def test_what_waits_for_the_hub_says_so(name, pretrained, waits, monkeypatch, caplog):
    def answer(*_, **__):
        time.sleep(0.3)
        raise ConnectionError("no answer")

    monkeypatch.setattr(network, "_ANNOUNCED", (0.05,))
    monkeypatch.setattr(load.timm, "create_model", answer)
    monkeypatch.setattr(load, "_ask_hub", lambda *_: None)
    monkeypatch.setattr(load, "check_reachable", lambda _: None)
    caplog.set_level(logging.INFO)
    with pytest.raises(UserError, match="could not be downloaded: no answer"):
        create(name, "student", pretrained=pretrained)
    assert any(f"student {name}: waiting for" in line for line in caplog.messages) == waits


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "hf-hub:alice/nowhere"])
def test_without_a_network_a_download_is_given_up_in_seconds(name, monkeypatch, tmp_path):
    """The Hub's client waits 23 s for each file that the cache lacks."""
    waited, cached = [], []
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(network.time, "sleep", waited.append)
    with pytest.raises(UserError, match=f"{name}: http://127.0.0.1:9 cannot be reached .*local-dir:FOLDER"):
        create(name, "teacher", pretrained=True)
    assert waited == [1.0]
    monkeypatch.setattr(load, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "copy"))
    monkeypatch.setattr(load, "_check_config", lambda *_: None)
    monkeypatch.setattr(load.timm, "create_model", lambda *_, **__: cached.append(1))
    with pytest.raises(UserError, match="returns NoneType"):  # as far as the copy in the cache
        create(name, "teacher", pretrained=True)
    assert cached and waited == [1.0]


def test_weights_from_a_file_need_no_network(folder, monkeypatch):
    monkeypatch.setattr(load, "check_reachable", lambda name: pytest.fail(f"{name} is looked for"))
    weights = str(folder / "model.safetensors")
    recipe = load_recipe(["--data-dir", "d", "--model", "test_resnet", "--pretrained-path", weights])
    student, _ = build_student(recipe, 3)
    assert student.num_classes == 3
