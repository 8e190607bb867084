"""An exported student is what timm alone loads."""

import json

import pytest
import timm
import torch
from torch import nn

from dccd_timm.errors import UserError
from dccd_timm.run.export import check_own_network, export

CONFIG = {
    "input_size": (3, 48, 40), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "interpolation": "bilinear",
    "crop_pct": 0.9, "crop_mode": "center",
}  # fmt: skip


@pytest.fixture
def student():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=2).eval()


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_timm_loads_weights_names_and_preprocessing(student, tmp_path):
    export(
        student.to(memory_format=torch.channels_last),
        tmp_path / "best",
        CONFIG,
        ["cat", "dog"],
        {"dccd_timm": {"epoch": 3}},
    )
    loaded = timm.create_model(f"local-dir:{tmp_path / 'best'}", pretrained=True).eval()
    image = torch.randn(2, 3, 48, 40)
    assert torch.equal(loaded(image), student.to(memory_format=torch.contiguous_format)(image))
    found = timm.data.resolve_model_data_config(loaded)
    as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    assert {name: as_tuples[name] for name in CONFIG} == CONFIG
    config = config_of(tmp_path / "best")
    assert config["label_names"] == ["cat", "dog"] and config["dccd_timm"] == {"epoch": 3}
    assert not {"tag", "license", "origin_url"} & set(config["pretrained_cfg"])  # the default weights' own
    assert {path.name for path in tmp_path.iterdir()} == {"best"}


def test_wordnet_names_get_descriptions_and_a_wrong_number_of_names_none(student, tmp_path):
    export(student, tmp_path / "wordnet", CONFIG, ["n01440764", "n01443537"], {})
    assert config_of(tmp_path / "wordnet")["label_descriptions"]["n01440764"].startswith("tench")
    export(student, tmp_path / "other", CONFIG, ["one", "two", "three"], {})
    assert "label_names" not in config_of(tmp_path / "other")


def test_it_moves_no_random_number(student, tmp_path):
    state = torch.get_rng_state()
    export(student, tmp_path / "best", CONFIG, None, {})
    assert torch.equal(torch.get_rng_state(), state)


def test_a_student_that_timm_does_not_build_again_replaces_nothing(student, tmp_path):
    export(student, tmp_path / "best", CONFIG, None, {})
    before = (tmp_path / "best" / "model.safetensors").read_bytes()
    changed = timm.create_model("test_resnet", num_classes=2)
    changed.layer1 = nn.Identity()
    with pytest.raises(UserError, match="timm"):
        export(changed, tmp_path / "best", CONFIG, None, {})
    different = timm.create_model("test_resnet", num_classes=2)
    different.maxpool = nn.AvgPool2d(3, 2, 1)  # the same weights, other answers
    with pytest.raises(UserError, match="an argument of its architecture is not kept"):
        export(different, tmp_path / "best", CONFIG, None, {})
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"best"}


def test_weights_that_are_used_at_two_places_are_written_at_both(tmp_path):
    model = timm.create_model("coat_tiny", num_classes=2).eval()
    state = model.state_dict()
    assert len({value.data_ptr() for value in state.values()}) < len(state)
    export(model, tmp_path / "coat", CONFIG | {"input_size": (3, 224, 224)}, None, {})
    loaded = timm.create_model(f"local-dir:{tmp_path / 'coat'}", pretrained=True)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())


def test_a_student_that_overflows_on_noise_is_still_itself(student, tmp_path):
    with torch.no_grad():
        student.bn1.running_var.fill_(0)
        student.bn1.weight.fill_(1e38)
    assert student(torch.randn(1, 3, 48, 40)).isnan().any()
    export(student, tmp_path / "best", CONFIG, None, {})
    assert (tmp_path / "best" / "model.safetensors").is_file()


class Own(torch.nn.Module):
    """A network of a user's own, without any of timm's methods."""

    def __init__(self, num_classes=1000, in_chans=3, drop_rate=0.0):
        super().__init__()
        self.num_classes, self.num_features = num_classes, in_chans
        self.fc = torch.nn.Linear(in_chans, num_classes)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def own_whole(pretrained=False, **kwargs):
    return timm.models.build_model_with_cfg(Own, "own_whole", pretrained, **kwargs)


def own_forgets(pretrained=False, num_classes=1000, **kwargs):
    return timm.models.build_model_with_cfg(Own, "own_forgets", False, num_classes=num_classes)


def own_default(pretrained=False, num_classes=1000, **kwargs):
    net = Own(num_classes)
    net.pretrained_cfg = {"architecture": "own_default", "input_size": (3, 8, 8)}
    return net


def own_fails(pretrained=False, **kwargs):
    net = Own(kwargs["num_classes"])
    net.pretrained_cfg = {"architecture": "own_fails", "input_size": (3, 8, 8)}
    return net


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (own_whole, None),
        (own_forgets, "timm does not load the student's weights again"),
        (own_default, "timm does not load the student's weights again"),
        (own_fails, "timm cannot build the student again from its config.json: 'num_classes'"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_network_of_the_users_own_is_tried_before_it_is_trained(function, said):
    timm.models.register_model(function)
    model = timm.create_model(function.__name__, num_classes=3)
    config = dict(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, interpolation="bilinear",
                  crop_mode="center")  # fmt: skip
    if said is None:
        check_own_network(model, config)
        return
    with pytest.raises(UserError) as caught:
        check_own_network(model, config)
    assert said in str(caught.value) and "build_model_with_cfg(Network, NAME, pretrained, **kwargs)" in str(
        caught.value
    )
