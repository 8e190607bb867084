"""A folded teacher answers as the teacher did, and the teacher itself is left as it was."""

import pytest
import timm
import torch
from torch import nn

from dccd_timm.models.fold import fold_batch_norms
from dccd_timm.models.taps import tapped_forward


def trained(model):
    """A model whose norms have seen something: fresh statistics would hide a wrong fold."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, (low, high) in (
                (module.running_mean, (-0.5, 0.5)),
                (module.running_var, (0.5, 2)),
                (module.weight.data, (0.5, 1.5)),
                (module.bias.data, (-0.3, 0.3)),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return model.eval().requires_grad_(False)


def norms(model):
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


# all norms fold | those before convolutions stay | "same" padding and activations inside norms | none to fold
@pytest.mark.parametrize(
    ("name", "left"), [("resnet18", 0), ("densenet121", 62), ("tf_efficientnet_b0", 0), ("test_vit", 0)]
)
def test_logits_and_maps_stay(name, left):
    model = trained(timm.create_model(name, num_classes=10))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert norms(folded) == left and (folded is model) == (norms(model) == 0)
    size = 160 if name == "test_vit" else 64
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    stages = range(len(model.feature_info))
    with torch.no_grad():
        logits, maps = tapped_forward(model, images, stages)
        logits_folded, maps_folded = tapped_forward(folded, images, stages)
    for a, b in zip([logits_folded, *maps_folded], [logits, *maps], strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)


def test_a_model_that_needs_its_norms_or_what_comes_before_them_is_left_alone():
    class Side(nn.Module):
        """Adds what the convolution gave, past the norm."""

        def __init__(self, conv, norm):
            super().__init__()
            self.conv, self.norm = conv, norm

        def forward(self, x):
            x = self.conv(x)
            return self.norm(x) + x

    model = timm.create_model("resnet18", num_classes=10)
    model.conv1, model.bn1 = Side(model.conv1, model.bn1), nn.Identity()
    model = trained(model)
    assert fold_batch_norms(model) is model
    half = trained(timm.create_model("resnet18", num_classes=10)).bfloat16()
    assert fold_batch_norms(half) is half
