"""Models by name: what is built, where weights come from, and one line for each failure."""

import pytest
import timm
from timm.models import save_for_hf

from dccd_timm.errors import UserError
from dccd_timm.models.load import checkpoint_file, create, create_sized, origin


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


def test_the_file_of_weights():
    assert checkpoint_file("local-dir:/some/run", "--initial-checkpoint") == "/some/run/model.safetensors"
    assert checkpoint_file("weights.pth", "--initial-checkpoint") == "weights.pth"


def test_origins(tmp_path):
    model = timm.create_model("resnet18")
    assert origin("resnet18.a1_in1k", model) == {
        "name": "timm/resnet18.a1_in1k", "hub_id": "timm/resnet18.a1_in1k", "license": "apache-2.0",
    }  # fmt: skip
    assert origin("resnet18", model, pretrained=False) == {"name": "resnet18"}
    save_for_hf(timm.create_model("test_vit"), tmp_path, safe_serialization=True)
    folder = f"local-dir:{tmp_path}"
    assert origin(folder, timm.create_model(folder)) == {"name": "test_vit"}
