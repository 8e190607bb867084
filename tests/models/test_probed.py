"""A linear head on a model without one: its logits, and all else is the model's own."""

import copy

import pytest
import timm
import torch
from torch import nn

from dccd_timm.errors import UserError
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.models.probed import ProbedModel, check_pools


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_it_answers_with_the_linear_map_of_the_pooled_features(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    weight, bias = torch.randn(5, model.num_features), torch.randn(5)
    probed = ProbedModel(model, weight, bias).eval()
    images = torch.randn(2, 3, 160, 160)
    pooled = model(images)
    torch.testing.assert_close(probed(images), pooled @ weight.T + bias)
    torch.testing.assert_close(probed.forward_head(probed.forward_features(images), pre_logits=True), pooled)
    assert probed.num_classes == 5 and probed.feature_info is model.feature_info
    assert probed.pretrained_cfg is model.pretrained_cfg and isinstance(probed.get_classifier(), nn.Linear)
    with pytest.raises(AttributeError):
        probed.no_such_thing  # noqa: B018
    copy.deepcopy(probed)
    frozen = FrozenTeacher(probed, (0.5,) * 3, (0.5,) * 3, (3, 160, 160), fold=True)
    logits, maps = frozen(images, [1])
    assert frozen.num_classes == 5 and frozen.has_features and maps[0].ndim == 4
    torch.testing.assert_close(logits, probed(frozen.adapt(images)), atol=1e-4, rtol=1e-4)


def test_an_encoder_that_does_not_pool_is_refused():
    with pytest.raises(UserError, match="teacher e does not pool its features: choose a timm classifier"):
        check_pools(nn.Identity(), "e")
