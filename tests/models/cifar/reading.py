"""What the tests of every family share: sizes and values against the published ones, and an independent reading."""

import timm
import torch
from torch.nn import functional as F


def check_sizes(name, row, names, pooled_width=None):
    """Parameters, entries of the state dict, names of weights and maps are the published ones."""
    parameters, entries, shapes = row
    model = timm.create_model(f"cifar_{name}").eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == entries
    assert set(names) <= set(model.state_dict())
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        final, maps = model.forward_intermediates(images)
        assert [f"{m.shape[1]},{m.shape[2]}" for m in maps] == shapes.split()
        assert [(info["num_chs"], 32 // info["reduction"]) for info in model.feature_info] == [
            tuple(map(int, word.split(","))) for word in shapes.split()
        ]
        pooled = model.forward_head(final, pre_logits=True)
        assert pooled.shape == (2, pooled_width or maps[-1].shape[1]) == (2, model.num_features)
        logits = model(images)
        torch.testing.assert_close(model.get_classifier()(pooled), logits)
        torch.testing.assert_close(model.forward_head(model.forward_features(images)), logits)


def check_values(name, reading):
    """Logits are those of an independent reading of the papers, from the same weights."""
    torch.manual_seed(0)
    model = timm.create_model(f"cifar_{name}").double()
    model(torch.randn(8, 3, 32, 32).double())  # norms with statistics of their own
    images = torch.randn(3, 3, 32, 32).double()
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), reading(model.state_dict(), images))


def norm(state, name, x):
    return F.batch_norm(x, *(state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))


def conv(state, name, x, **options):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2, **options)
