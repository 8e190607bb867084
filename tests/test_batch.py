"""What crosses the stages: views of a batch are folded to timm's view-major order."""

import torch

from dccd_timm.batch import fold_views


def test_fold_is_view_major():
    views = torch.arange(6).view(3, 2, 1, 1, 1)  # image b has views 2b, 2b + 1
    folded, target = fold_views(views, torch.tensor([7, 8, 9]))
    assert folded.flatten().tolist() == [0, 2, 4, 1, 3, 5] and target.tolist() == [7, 8, 9, 7, 8, 9]
    soft = fold_views(views, torch.eye(3))[1]
    assert torch.equal(soft, torch.cat([torch.eye(3)] * 2))
    assert fold_views(folded, target)[0] is folded
