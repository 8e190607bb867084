"""Batches on the device: normalised as timm does it, mixed as one instance, with near copies and erased boxes."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing

from dccd_timm.batch import Batch
from dccd_timm.data.device import Erasing, Mixing, NearCopies, ViewPreparer
from dccd_timm.data.seeds import seeded
from dccd_timm.data.views import erased_views, train_views
from dccd_timm.recipe import load_recipe, plan_views
from tests.conftest import picture

CONFIG = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_both_views_of_an_image_get_the_same_mix_of_the_same_partner(mode, kind):
    alphas = dict(mixup_alpha=1.0, cutmix_alpha=0.0) if kind == "mixup" else dict(mixup_alpha=0.0, cutmix_alpha=1.0)
    prepare = ViewPreparer(
        torch.device("cpu"), (0.0,), (1.0,), mixing=Mixing(Mixup(**alphas, mode=mode, num_classes=4, label_smoothing=0))
    )
    # pixel value = 10 * image + view + 1, so that a mix shows what went in
    values = 10.0 * torch.arange(4).view(4, 1, 1, 1, 1) + torch.arange(3).view(1, 3, 1, 1, 1) + 1
    np.random.seed(3)
    out = prepare(Batch(values.expand(4, 3, 1, 16, 16).clone(), torch.arange(4)))
    assert out.target.shape == (4, 4)
    for image in range(4):
        partner = 3 - image
        share = out.target[image, partner]  # of the partner in the target
        for view in range(3):
            own, other = values[image, view].item(), values[partner, view].item()
            mean = out.views[image, view].mean()
            torch.testing.assert_close(mean, own + share * (other - own), rtol=1e-3, atol=1e-2)
        boxes = out.views[image] - values[image]
        assert torch.equal(boxes[0] != 0, boxes[1] != 0)  # the same box in each view


def test_mixing_stops_at_mixup_off_epoch():
    prepare = ViewPreparer(
        torch.device("cpu"), (0.0,), (1.0,), mixing=Mixing(Mixup(num_classes=4, label_smoothing=0), off_epoch=2)
    )
    for epoch, mixed in ((1, True), (2, False)):
        prepare.set_epoch(epoch)
        out = prepare(Batch(torch.rand(4, 2, 1, 8, 8), torch.arange(4)))
        assert (out.target.max() < 1).item() is mixed


def test_uint8_views_are_normalised_as_timm_does_it():
    pixels = torch.randint(0, 256, (2, 2, 3, 4, 4), dtype=torch.uint8)
    out = ViewPreparer(torch.device("cpu"), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(Batch(pixels, torch.zeros(2)))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)))
    torch.testing.assert_close(out.views, (pixels / 255 - mean) / std)


@pytest.mark.parametrize("where", ["device", "workers"])
def test_resplit_leaves_the_first_view_unerased(where):
    recipe = load_recipe(["--dccd-views", "2", "--reprob", "1", "--remode", "const", "--resplit", "--no-aug"][:-1]
                         + ["--scale", "1", "1", "--ratio", "1", "1", "--hflip", "0", "--color-jitter", "0"]
                         + (["--no-prefetcher"] if where == "workers" else []))  # fmt: skip
    white = Image.new("RGB", (32, 32), "white")
    views = torch.stack(train_views(recipe, CONFIG)(white))[None]
    if where == "device":
        erasing = Erasing(RandomErasing(1.0, mode="const", device="cpu"), (False, True))
        views = ViewPreparer(torch.device("cpu"), CONFIG["mean"], CONFIG["std"], erasing)(
            Batch(views, torch.zeros(1))
        ).views
    assert (views[0, 0] == views[0, 0].max()).all() and (views[0, 1] != views[0, 1].max()).any()


def prepared(*flags, images=8, number=0):
    """Sample-first views of pictures as training makes them, in [0, 1] pixel units."""
    recipe = load_recipe(["--seed", "5", "--kd-model-name", "resnet18", "--kd-distill-type", "dccd", *flags])
    transform = train_views(recipe, CONFIG)
    drawn = []
    for index in range(images):
        with seeded(1, index):
            drawn.append(torch.stack(transform(picture(index % 3, index, size=64))))
    copies = NearCopies(plan_views(recipe.dccd_view_aug, recipe.dccd_views), 1, recipe.dccd_near_noise)
    erasing = None
    if recipe.reprob:
        erasing = Erasing(RandomErasing(1.0, mode="const", min_area=0.3, device="cpu"), erased_views(recipe))
    prepare = ViewPreparer(torch.device("cpu"), CONFIG["mean"], CONFIG["std"], erasing, copies, seed=(recipe.seed, 0))
    out = prepare(Batch(torch.stack(drawn), torch.zeros(images)), number).views
    return recipe, out * 0.25 + 0.5


def distance(views, a, b):
    """Mean absolute difference of two views in pixel units, for each image."""
    return (views[:, a] - views[:, b]).abs().mean((1, 2, 3))


def test_a_near_view_is_a_minor_change_of_another_one():
    recipe, views = prepared("--dccd-view-aug", "near", "--dccd-views", "3", "--reprob", "1")
    assert views.shape[1] == 3 and recipe.dccd_difference_views == (0, 2)
    assert (distance(views, 0, 2) > 0).all()
    assert (distance(views, 0, 2) < 0.5 * distance(views, 0, 1)).all()
    # the noise-free copy is the original moved by at most one pixel, erased boxes and all
    _, views = prepared("--dccd-view-aug", "near", "--dccd-near-noise", "0", "--reprob", "1")
    for original, copy in views:
        places = [
            torch.equal(copy[:, 1:-1, 1:-1], original[:, 1 + y : 31 + y, 1 + x : 31 + x])
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        ]
        assert sum(places) == 1 and not places[4]


def test_copies_are_drawn_from_the_batch_number():
    first, again, other = (prepared("--dccd-view-aug", "near", number=n)[1] for n in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first[:, 0], other[:, 0]) and not torch.equal(first[:, 1], other[:, 1])
    state = torch.get_rng_state()
    prepared("--dccd-view-aug", "near")
    assert torch.equal(state, torch.get_rng_state())  # dropout must not notice


def test_a_weak_view_keeps_the_colours():
    flags = ["--hflip", "0", "--scale", "1", "1", "--ratio", "1", "1", "--color-jitter", "0.9", "--reprob", "1"]
    flags += ["--train-interpolation", "bilinear"]
    _, views = prepared(*flags, "--dccd-view-aug", "weak-strong", "--dccd-views", "3")
    with_no_jitter = prepared(*flags[:-4], "--color-jitter", "0", "--train-interpolation", "bilinear")[1]
    assert torch.allclose(views[:, 0], with_no_jitter[:, 0], atol=0.02)
    assert (distance(views, 0, 1) > 0.05).any() and (distance(views, 1, 2) > 0.05).any()
