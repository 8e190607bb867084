"""The benchmark's 22 networks: sizes and names of the public checkpoints, values of an independent reading."""

import argparse

import pytest
import timm
import torch
from timm.models import get_model_input_config
from torch.nn import functional as F

from dccd_timm import DCCDTask
from dccd_timm.models.teacher import load_teacher

STEM16 = "16,32 16,32 32,16 64,8"
VGG = "64,32 128,16 256,8 512,4 512,4"
# parameters, entries of the state dict and maps (channels, pixels) for 100 classes, as published
TABLE = {
    "resnet8": (83_892, 56, STEM16), "resnet14": (181_108, 92, STEM16), "resnet20": (278_324, 128, STEM16),
    "resnet32": (472_756, 200, STEM16), "resnet44": (667_188, 272, STEM16), "resnet56": (861_620, 344, STEM16),
    "resnet110": (1_736_564, 668, STEM16), "resnet8x4": (1_233_540, 62, "32,32 64,32 128,16 256,8"),
    "resnet32x4": (7_433_860, 206, "32,32 64,32 128,16 256,8"),
    "resnet50": (23_705_252, 320, "64,32 256,32 512,16 1024,8 2048,4"),
    "wrn_16_1": (180_916, 82, STEM16), "wrn_16_2": (703_284, 83, "16,32 32,32 64,16 128,8"),
    "wrn_40_1": (569_780, 226, STEM16), "wrn_40_2": (2_255_156, 227, "16,32 32,32 64,16 128,8"),
    "vgg8": (3_965_028, 37, VGG), "vgg11": (9_277_284, 58, VGG), "vgg13": (9_462_180, 72, VGG),
    "vgg16": (14_774_436, 93, VGG), "vgg19": (20_086_692, 114, VGG),
    "mobilenetv2_050": (812_836, 320, "16,16 12,16 16,8 48,4 160,2"),
    "shufflenetv1": (949_258, 296, "24,32 240,16 480,8 960,4"),
    "shufflenetv2": (1_355_528, 338, "24,32 116,16 232,8 464,4"),
}  # fmt: skip
POOLED = {"mobilenetv2_050": 1280, "shufflenetv2": 1024}
# names that the public checkpoints are told by
NAMES = {
    "resnet56": ["conv1.weight", "layer1.8.bn2.weight", "layer2.0.downsample.0.weight", "fc.bias"],
    "resnet8x4": ["layer1.0.downsample.1.running_var"],
    "resnet50": ["layer1.0.shortcut.0.weight", "layer4.2.conv3.weight", "linear.weight"],
    "wrn_40_2": ["block1.layer.0.convShortcut.weight", "block3.layer.5.conv2.weight", "bn1.bias", "fc.weight"],
    "vgg13": ["block0.0.bias", "block0.3.weight", "block4.4.running_mean", "classifier.weight"],
    "mobilenetv2_050": ["conv1.0.weight", "blocks.1.0.conv.3.weight", "conv2.0.weight", "classifier.0.weight"],
    "shufflenetv1": ["layer1.0.conv3.weight", "linear.weight"],
    "shufflenetv2": ["layer3.3.conv3.weight", "conv2.weight", "linear.weight"],
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_and_maps_are_those_of_the_table(name):
    parameters, entries, shapes = TABLE[name]
    model = timm.create_model(f"cifar_{name}").eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    assert set(NAMES.get(name, [])) <= set(model.state_dict())
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        final, maps = model.forward_intermediates(images)
        assert [f"{m.shape[1]},{m.shape[2]}" for m in maps] == shapes.split()
        assert [(info["num_chs"], 32 // info["reduction"]) for info in model.feature_info] == [
            tuple(map(int, word.split(","))) for word in shapes.split()
        ]
        pooled = model.forward_head(final, pre_logits=True)
        assert pooled.shape == (2, POOLED.get(name, maps[-1].shape[1])) == (2, model.num_features)
        logits = model(images)
        torch.testing.assert_close(model.get_classifier()(pooled), logits)
        torch.testing.assert_close(model.forward_head(model.forward_features(images)), logits)


@pytest.mark.parametrize("name", ["resnet8", "resnet50", "wrn_16_1", "vgg8", "mobilenetv2_050", "shufflenetv2"])
def test_other_classes_and_channels(name):
    model = timm.create_model(f"cifar_{name}", num_classes=7, in_chans=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 7)
    assert get_model_input_config(model)["input_size"] == (1, 32, 32)
    model.reset_classifier(3)
    assert model.num_classes == 3 and model(torch.randn(2, 1, 32, 32)).shape == (2, 3)
    assert timm.create_model(f"cifar_{name}", num_classes=0)(torch.randn(2, 3, 32, 32)).shape[1] == model.num_features
    config = timm.data.resolve_model_data_config(timm.create_model(f"cifar_{name}"))
    assert config["input_size"] == (3, 32, 32) and config["mean"] == (0.5071, 0.4867, 0.4408)


def norm(state, name, x):
    return F.batch_norm(x, *(state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))


def conv(state, name, x, **options):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2, **options)


def resnet(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage in (1, 2, 3):
        block = f"layer{stage}.0"
        y = norm(s, f"{block}.bn1", conv(s, f"{block}.conv1", x, stride=1 if stage == 1 else 2)).relu()
        y = norm(s, f"{block}.bn2", conv(s, f"{block}.conv2", y))
        if f"{block}.downsample.0.weight" in s:
            x = norm(s, f"{block}.downsample.1", conv(s, f"{block}.downsample.0", x, stride=1 if stage == 1 else 2))
        x = (x + y).relu()
    return x.mean((2, 3)) @ s["fc.weight"].T + s["fc.bias"]


def wide(s, x):
    x = conv(s, "conv1", x)
    for stage in (1, 2, 3):
        for number in (0, 1):
            block, stride = f"block{stage}.layer.{number}", 2 if stage > 1 and number == 0 else 1
            y = norm(s, f"{block}.bn1", x).relu()
            x = conv(s, f"{block}.convShortcut", y, stride=stride) if f"{block}.convShortcut.weight" in s else x
            y = norm(s, f"{block}.bn2", conv(s, f"{block}.conv1", y, stride=stride)).relu()
            x = x + conv(s, f"{block}.conv2", y)
    return norm(s, "bn1", x).relu().mean((2, 3)) @ s["fc.weight"].T + s["fc.bias"]


def vgg(s, x):
    for block in range(5):
        x = norm(s, f"block{block}.1", conv(s, f"block{block}.0", x)).relu()
        x = F.max_pool2d(x, 2) if block < 3 else x
    return x.mean((2, 3)) @ s["classifier.weight"].T + s["classifier.bias"]


def mobile(s, x):
    x = norm(s, "conv1.1", conv(s, "conv1.0", x, stride=2)).relu()
    strides = [1, 1, 2, 2, 1, 2, 1]
    for group, count in enumerate([1, 2, 3, 4, 3, 3, 1]):
        for number in range(count):
            block = f"blocks.{group}.{number}.conv"
            y = norm(s, f"{block}.1", conv(s, f"{block}.0", x)).relu()
            stride = strides[group] if number == 0 else 1
            y = norm(s, f"{block}.4", conv(s, f"{block}.3", y, stride=stride, groups=y.shape[1])).relu()
            y = norm(s, f"{block}.7", conv(s, f"{block}.6", y))
            x = x + y if number else y
    x = norm(s, "conv2.1", conv(s, "conv2.0", x)).relu()
    return x.mean((2, 3)) @ s["classifier.0.weight"].T + s["classifier.0.bias"]


def interleaved(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)


def shuffle1(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for number in range(count):
            block, groups = f"layer{stage}.{number}", 1 if (stage, number) == (1, 0) else 3
            y = interleaved(norm(s, f"{block}.bn1", conv(s, f"{block}.conv1", x, groups=groups)).relu(), groups)
            y = norm(
                s, f"{block}.bn2", conv(s, f"{block}.conv2", y, stride=1 if number else 2, groups=y.shape[1])
            ).relu()
            y = norm(s, f"{block}.bn3", conv(s, f"{block}.conv3", y, groups=3))
            x = (x + y).relu() if number else torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1).relu()
    return x.mean((2, 3)) @ s["linear.weight"].T + s["linear.bias"]


def shuffle2(s, x):
    x = norm(s, "bn1", conv(s, "conv1", x)).relu()
    for stage, count in ((1, 4), (2, 8), (3, 4)):
        for number in range(count):
            b = f"layer{stage}.{number}"
            if number == 0:
                left = norm(s, f"{b}.bn1", conv(s, f"{b}.conv1", x, stride=2, groups=x.shape[1]))
                left = norm(s, f"{b}.bn2", conv(s, f"{b}.conv2", left)).relu()
                right = norm(s, f"{b}.bn3", conv(s, f"{b}.conv3", x)).relu()
                right = norm(s, f"{b}.bn4", conv(s, f"{b}.conv4", right, stride=2, groups=right.shape[1]))
                right = norm(s, f"{b}.bn5", conv(s, f"{b}.conv5", right)).relu()
            else:
                half = x.shape[1] // 2
                left, right = x[:, :half], norm(s, f"{b}.bn1", conv(s, f"{b}.conv1", x[:, half:])).relu()
                right = norm(s, f"{b}.bn2", conv(s, f"{b}.conv2", right, groups=half))
                right = norm(s, f"{b}.bn3", conv(s, f"{b}.conv3", right)).relu()
            x = interleaved(torch.cat([left, right], 1), 2)
    x = norm(s, "bn2", conv(s, "conv2", x)).relu()
    return x.mean((2, 3)) @ s["linear.weight"].T + s["linear.bias"]


@pytest.mark.parametrize(
    ("name", "reading"),
    [("resnet8", resnet), ("resnet8x4", resnet), ("wrn_16_2", wide), ("vgg8", vgg), ("mobilenetv2_050", mobile),
     ("shufflenetv1", shuffle1), ("shufflenetv2", shuffle2)],
)  # fmt: skip
def test_values_are_those_of_an_independent_reading(name, reading):
    torch.manual_seed(0)
    model = timm.create_model(f"cifar_{name}").double()
    model(torch.randn(8, 3, 32, 32).double())  # norms with statistics of their own
    images = torch.randn(3, 3, 32, 32).double()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), reading(model.state_dict(), images))


@pytest.mark.parametrize(
    ("student", "teacher"), [("resnet8", "resnet32x4"), ("shufflenetv2", "wrn_40_2"), ("vgg8", "resnet50")]
)
def test_a_pair_of_them_can_be_distilled(student, teacher):
    pair = (timm.create_model(f"cifar_{n}", num_classes=5) for n in (student, teacher))
    task = DCCDTask(*pair, device=torch.device("cpu"), verbose=False)
    loss = task(torch.randn(4, 2, 3, 32, 32), torch.arange(4))["loss"]
    loss.backward()
    assert all(p.grad is not None for p in task.trainable_module.parameters())


@pytest.mark.parametrize("kind", ["ckpt_epoch_240.pth", "resnet8_last.pth"])
def test_a_public_checkpoint_is_a_teacher(kind, tmp_path):
    """In the benchmark's two layouts, from a torch so old that it did not count batches."""
    model = timm.create_model("cifar_resnet8")
    weights = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    kept = {"epoch": 240, "model": dict(weights), "accuracy": torch.tensor(59.5), "optimizer": {"state": {}}}
    if "last" in kind:
        kept = {"opt": argparse.Namespace(model="resnet8", lr=0.05), "model": dict(weights), "optimizer": {"state": {}}}
    torch.save(kept, tmp_path / kind)
    teacher = load_teacher("cifar_resnet8", str(tmp_path / kind), 100)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(images), model.eval()(images))
