"""Teachers from every place, with their own head, nothing executed on the way."""

import argparse
import pickle

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from dccd_timm.errors import UserError
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.teacher import load_teacher


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5, in_chans=1).eval()


def same(a, b):
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        return torch.equal(a(x), b(x))


def test_local_dir(model, tmp_path):
    save_for_hf(model, tmp_path, safe_serialization=True)
    teacher = load_teacher(f"local-dir:{tmp_path}", num_classes=5)
    assert same(teacher, model)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    with pytest.raises(UserError, match="has 5 classes, the student 10"):
        load_teacher(f"local-dir:{tmp_path}", num_classes=10)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "timm checkpoint", "ema wins"])
def test_checkpoint_file(model, tmp_path, kind):
    state = model.state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth.tar")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "state dict":
        torch.save(state, path)
    else:
        other = {k: torch.zeros_like(v) for k, v in state.items()} if kind == "ema wins" else state
        saved = {"state_dict": other, "epoch": 3, "arch": "test_resnet", "args": argparse.Namespace(lr=0.1)}
        torch.save(saved | ({"state_dict_ema": state} if kind == "ema wins" else {}), path)
    assert same(load_teacher("test_resnet", str(path), num_classes=5), model)  # channels and classes are the file's
    with pytest.raises(UserError, match="has 5 classes, the student 7"):
        load_teacher("test_resnet", str(path), num_classes=7)
    with pytest.raises(UserError, match="does not fit test_vit"):
        load_teacher("test_vit", str(path), num_classes=5)


class Payload:
    def __reduce__(self):
        return (open, ("/tmp/dccd-timm-executed", "w"))


def test_a_checkpoint_of_another_image_size_is_a_teacher_of_that_size(tmp_path):
    trained = timm.create_model("test_vit", img_size=96, num_classes=3).eval()
    torch.save(trained.state_dict(), tmp_path / "96.pth")
    teacher = load_teacher("test_vit", str(tmp_path / "96.pth"), 3)
    frozen = FrozenTeacher(teacher, (0.5,) * 3, (0.5,) * 3, (3, 32, 32))
    assert frozen.input_size((3, 32, 32)) == (3, 96, 96)
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(teacher(images), trained(images))


def test_a_pickle_is_refused_and_runs_nothing(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"state_dict": Payload()}))
    torch.save({"state_dict": Payload()}, tmp_path / "evil2.pth")
    import pathlib

    for file in (path, tmp_path / "evil2.pth"):
        with pytest.raises(UserError, match="cannot be read"):
            load_teacher("test_resnet", str(file), num_classes=5)
    assert not pathlib.Path("/tmp/dccd-timm-executed").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18s", "did you mean resnet18"),
        ("owner/name", "hf-hub:owner/name"),
        ("s3:bucket", "Unknown model source"),
        ("local-dir:/no/such/place", "/no/such/place"),
        ("resnet18.no_tag", "Invalid pretrained tag"),
    ],
)
def test_names_that_do_not_exist(name, message):
    with pytest.raises(UserError, match=message) as caught:
        load_teacher(name, num_classes=5)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="hf-hub:owner/missing.*(download|built)"):
        load_teacher("hf-hub:owner/missing", num_classes=5)
