"""Views and mixing: independent views of one decode, mixed as one instance."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup, create_loader, create_transform
from timm.data.random_erasing import RandomErasing
from torch.utils.data import Dataset

from dccd_timm import MultiViewTransform
from dccd_timm.batch import Batch, fold_views
from dccd_timm.data.device import ViewPreparer
from dccd_timm.data.views import decode, erased_views, seeded, train_views
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe, plan_views
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


def test_fold_is_view_major():
    views = torch.arange(6).view(3, 2, 1, 1, 1)  # image b has views 2b, 2b + 1
    folded, target = fold_views(views, torch.tensor([7, 8, 9]))
    assert folded.flatten().tolist() == [0, 2, 4, 1, 3, 5] and target.tolist() == [7, 8, 9, 7, 8, 9]
    soft = fold_views(views, torch.eye(3))[1]
    assert torch.equal(soft, torch.cat([torch.eye(3)] * 2))
    assert fold_views(folded, target)[0] is folded


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_both_views_of_an_image_get_the_same_mix_of_the_same_partner(mode, kind):
    alphas = dict(mixup_alpha=1.0, cutmix_alpha=0.0) if kind == "mixup" else dict(mixup_alpha=0.0, cutmix_alpha=1.0)
    prepare = ViewPreparer(
        torch.device("cpu"), (0.0,), (1.0,), mixup=Mixup(**alphas, mode=mode, num_classes=4, label_smoothing=0)
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
        torch.device("cpu"), (0.0,), (1.0,), mixup=Mixup(num_classes=4, label_smoothing=0), mixup_off_epoch=2
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
        from timm.data.random_erasing import RandomErasing

        erasing = RandomErasing(1.0, mode="const", device="cpu")
        views = ViewPreparer(torch.device("cpu"), CONFIG["mean"], CONFIG["std"], erasing=erasing, erased=(False, True))(
            Batch(views, torch.zeros(1))
        ).views
    assert (views[0, 0] == views[0, 0].max()).all() and (views[0, 1] != views[0, 1].max()).any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_every_pil_mode_is_decoded(mode, wanted):
    source = picture(0, 0, channels=1 if mode == "I;16" else 3)
    image = Image.fromarray(np.asarray(source, dtype=np.uint16) * 200) if mode == "I;16" else source.convert(mode)
    data = encoded(image, {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG"))
    assert decode(data, wanted).mode == wanted


@pytest.mark.parametrize("data", [b"", b"not an image", None, {"bytes": None, "path": "/nowhere.png"}])
def test_what_cannot_be_decoded_raises_oserror(data):
    with pytest.raises(OSError, match=".+"):
        decode(data, "RGB")
    with pytest.raises(OSError, match=".+"):
        decode(encoded(picture(0, 0, size=200), "JPEG")[:800], "RGB")


def test_seeded_draws_the_same_again_and_leaves_the_main_process_alone():
    transform = create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5", use_prefetcher=True)
    image = picture(2, 1)

    def draw(*numbers):
        with seeded(*numbers):
            return transform(image)

    torch.manual_seed(0), np.random.seed(0)
    expected = torch.rand(3), np.random.rand()
    torch.manual_seed(0), np.random.seed(0)
    first, other = draw(1, 2, 3), draw(1, 2, 4)
    assert torch.equal(torch.rand(3), expected[0]) and np.random.rand() == expected[1]
    assert torch.equal(first, draw(1, 2, 3)) and not torch.equal(first, other)


def prepared(*flags, images=8, number=0):
    """Sample-first views of pictures as training makes them, in [0, 1] pixel units."""
    recipe = load_recipe(["--seed", "5", "--kd-model-name", "resnet18", "--kd-distill-type", "dccd", *flags])
    transform = train_views(recipe, CONFIG)
    drawn = []
    for index in range(images):
        with seeded(1, index):
            drawn.append(torch.stack(transform(picture(index % 3, index, size=64))))
    views = plan_views(recipe.dccd_view_aug, recipe.dccd_views)
    erasing = RandomErasing(1.0, mode="const", min_area=0.3, device="cpu") if recipe.reprob else None
    prepare = ViewPreparer(
        torch.device("cpu"), CONFIG["mean"], CONFIG["std"], views, (1, recipe.dccd_near_noise), erasing,
        erased_views(recipe), seed=(recipe.seed, 0),
    )  # fmt: skip
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


@pytest.mark.parametrize(
    ("words", "views", "pair"),
    [
        (["same"], None, (0, 1)),
        (["near"], None, (0, 1)),
        (["strong", "near:0"], None, (0, 1)),
        (["strong", "weak", "near:1"], None, (1, 2)),
        (["near:2", "strong", "weak"], 3, (2, 0)),
    ],
)
def test_the_task_is_told_which_pair_is_near(words, views, pair):
    flags = ["--dccd-views", str(views)] if views else []
    recipe = load_recipe(
        ["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", "--dccd-view-aug", *words, *flags]
    )
    assert recipe.dccd_difference_views == pair and recipe.dccd_views == max(2, len(words))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dccd-view-aug", "blurred"], "1 values for 2 views"),
        (["--dccd-view-aug", "strong", "blurred"], "'blurred' is no view"),
        (["--dccd-view-aug", "strong", "near:1"], "near view 1, which is not drawn by itself"),
        (["--dccd-view-aug", "near", "--dccd-views", "1", "--dccd-difference-weight", "0"], "set dccd_views"),
        (["--dccd-near-noise", "0.1"], "dccd_near_noise has no effect: dccd_view_aug has no near view"),
    ],
)
def test_views_that_cannot_be(flags, message):
    with pytest.raises(UserError, match=message):
        load_recipe(["--kd-model-name", "resnet18", "--kd-distill-type", "dccd", *flags])


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m10-inc1", "v0", "3a", "augmix-m5-w4-d2"])
def test_every_policy_of_timms_works_with_this_pillow(policy):
    """Pillow >= 13 refuses the zero bits that timm's increasing policies ask of posterize."""
    recipe = load_recipe(["--aa", policy])
    transform = train_views(recipe, CONFIG)
    image = picture(1, 0)
    for number in range(1000):
        with seeded(7, number):
            assert transform(image)[0].shape == (3, 32, 32)
