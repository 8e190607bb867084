"""Independent views of one decoded image, by timm's transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_loader, create_transform
from torch.utils.data import Dataset

from dccd_timm import MultiViewTransform
from dccd_timm.data.decode import decode
from dccd_timm.data.seeds import seeded
from dccd_timm.data.views import train_views
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded, picture

CONFIG = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def test_views_are_independent_and_come_from_one_decode(monkeypatch):
    opened = []
    monkeypatch.setattr(Image, "open", lambda f, _open=Image.open: opened.append(f) or _open(f))
    transform = MultiViewTransform(create_transform(32, is_training=True, use_prefetcher=True), views=3)
    views = transform(decode({"bytes": encoded(picture(1, 0)), "path": None}, "RGB"))
    assert len(opened) == 1 and len(views) == 3
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    with pytest.raises(ValueError, match="give one each"):
        MultiViewTransform([abs, abs], views=3)


def test_a_padded_crop_shifts_the_image_by_at_most_the_padding():
    views = train_views(load_recipe(["--train-crop-pad", "4", "--hflip", "0", "--color-jitter", "0"]), CONFIG)
    image = picture(1, 0, size=32)
    padded = np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0))).transpose(2, 0, 1)
    shifts = {(r, c): padded[:, r : r + 32, c : c + 32] for r in range(9) for c in range(9)}
    seen = set()
    for _ in range(600):
        (view,) = views(image)
        seen |= {shift for shift, pixels in shifts.items() if np.array_equal(np.asarray(view), pixels)}
    assert len(seen) > 75  # of 81; each is missed by a chance of 0.06 %
    assert views(picture(1, 0, size=50))[0].shape == (3, 32, 32)  # another size is resized first


class Pictures(Dataset):
    transform = None

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(picture(index % 3, index)), index


def test_it_serves_timms_own_loader_view_major():
    loader = create_loader(Pictures(), (3, 32, 32), 4, is_training=True, num_workers=0, device=torch.device("cpu"))
    plain = create_transform(32, is_training=False, use_prefetcher=True, crop_pct=1.0)
    loader.dataset.transform = MultiViewTransform([plain, lambda image: plain(image).flip(-1)])
    images, target = next(iter(loader))
    assert images.shape == (8, 3, 32, 32) and torch.equal(target[:4], target[4:])
    torch.testing.assert_close(images[:4], images[4:].flip(-1))


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m10-inc1", "v0", "3a", "augmix-m5-w4-d2"])
def test_every_policy_of_timms_works_with_this_pillow(policy):
    """Pillow >= 13 refuses the zero bits that timm's increasing policies ask of posterize."""
    recipe = load_recipe(["--aa", policy])
    transform = train_views(recipe, CONFIG)
    image = picture(1, 0)
    for number in range(1000):
        with seeded(7, number):
            assert transform(image)[0].shape == (3, 32, 32)


@pytest.mark.parametrize("policy", ["nothing", "rand-x9"])
def test_a_policy_that_timm_does_not_know_is_one_line(policy):
    with pytest.raises(UserError, match=f"--aa {policy}: .*; give e.g. rand-m9") as caught:
        train_views(load_recipe(["--aa", policy]), CONFIG)
    assert "\n" not in str(caught.value)
