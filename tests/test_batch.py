"""What crosses the stages: views of a batch are folded to timm's view-major order."""

import pytest
import torch

from dccd_timm.batch import check_view_major, fold_views


def test_fold_is_view_major():
    views = torch.arange(6).view(3, 2, 1, 1, 1)  # image b has views 2b, 2b + 1
    folded, target = fold_views(views, torch.tensor([7, 8, 9]))
    assert folded.flatten().tolist() == [0, 2, 4, 1, 3, 5] and target.tolist() == [7, 8, 9, 7, 8, 9]
    soft = fold_views(views, torch.eye(3))[1]
    assert torch.equal(soft, torch.cat([torch.eye(3)] * 2))
    assert fold_views(folded, target)[0] is folded


def test_views_as_torchs_collate_function_gives_them():
    """A dataset whose transform gives a tuple of views becomes a list of V tensors [B, C, H, W]."""
    images = [((torch.full((3, 4, 4), b), torch.full((3, 4, 4), b + 10)), b) for b in range(5)]
    views, target = torch.utils.data.default_collate(images)
    folded, labels = fold_views(views, target, 2)
    assert folded[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert labels.tolist() == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize(
    ("views", "target"),
    [
        (torch.zeros(4, 3, 3, 8, 8), 4),  # three views where two are wanted
        ([torch.zeros(4, 3, 8, 8)] * 3, 4),
        ([], 4),
        ([torch.zeros(4, 3, 8, 8), torch.zeros(3, 3, 8, 8)], 4),
        ([torch.zeros(4, 3, 8, 8)] * 2, 8),
        (torch.zeros(5, 3, 8, 8), 5),  # no two halves
        (torch.zeros(8, 3, 8, 8), 4),  # targets that are not repeated
        (torch.zeros(8, 8), 8),
    ],
)
def test_other_shapes_are_refused_with_those_that_are_wanted(views, target):
    with pytest.raises(ValueError, match=r"as \[B, 2, C, H, W\] or as 2 tensors \[B, C, H, W\]") as caught:
        fold_views(views, torch.zeros(target, dtype=torch.long), 2)
    assert "\n" not in str(caught.value)


def test_halves_that_are_no_views_are_refused():
    check_view_major(torch.tensor([3, 1, 3, 1]), 2)
    check_view_major(torch.eye(3).repeat(2, 1), 2)
    with pytest.raises(ValueError, match="no views"):
        check_view_major(torch.tensor([3, 1, 0, 2]), 2)
