"""BatchNorm of a student: by views, over ranks, and under the names that timm gave it."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d

from dccd_timm.errors import UserError
from dccd_timm.models.student import share_batch_norms
from dccd_timm.recipe import load_recipe

CPU = torch.device("cpu")


def recipe(*flags):
    return load_recipe(["--dccd-views", "2", *flags])


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_lite0"])
def test_split_statistics_are_those_of_each_view_in_turn(name):
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3)
    split = share_batch_norms(copy.deepcopy(plain), recipe("--split-bn"), 1, CPU)
    one, two = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32) * 2 + 1
    torch.testing.assert_close(split(torch.cat([one, two])), torch.cat([plain(one), plain(two)]), rtol=1e-4, atol=1e-5)
    expected, got = plain.state_dict(), split.state_dict()
    assert list(expected) == list(got)
    for key in expected:
        torch.testing.assert_close(got[key], expected[key], rtol=1e-4, atol=1e-5)
    # a copy, as the average is, has its own statistics; evaluation takes any number of images
    average = copy.deepcopy(split)
    split(torch.cat([one, two]))
    assert torch.equal(average.state_dict()["bn1.running_mean"], expected["bn1.running_mean"])
    split.eval()(torch.randn(5, 3, 32, 32))


def test_statistics_over_ranks_keep_activations_and_are_refused_without_gpus():
    with pytest.raises(UserError, match="--sync-bn needs GPUs"):
        share_batch_norms(timm.create_model("efficientnet_lite0"), recipe("--sync-bn"), 2, CPU)
    model = share_batch_norms(timm.create_model("efficientnet_lite0"), recipe("--sync-bn"), 2, torch.device("cuda"))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.SyncBatchNorm)]
    before = [m for m in timm.create_model("efficientnet_lite0").modules() if isinstance(m, BatchNormAct2d)]
    assert [type(m.act) for m in norms] == [type(m.act) for m in before]
    assert list(model.state_dict()) == list(timm.create_model("efficientnet_lite0").state_dict())
