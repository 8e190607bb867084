"""How a student follows its teacher through minor changes, against a computation in NumPy and Pillow alone."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from dccd_timm.batch import Batch
from dccd_timm.report.schema import Sensitivity
from dccd_timm.report.sensitivity import IMAGES, SensitivityMeter, follow, minor_changes

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Linear(nn.Module):
    """Logits that are a linear function of the pixels; a matrix [K, C * H * W]."""

    def __init__(self, matrix):
        super().__init__()
        self.num_classes = len(matrix)
        self.matrix = nn.Parameter(torch.tensor(matrix, dtype=torch.float32))

    def forward(self, images):
        return images.flatten(1) @ self.matrix.T


def batches(images, size=7):
    """Normalised images [N, C, H, W] in batches of one view, with one in which nothing could be read."""
    parts = [Batch(part[:, None], torch.zeros(len(part), dtype=torch.long)) for part in images.split(size)]
    return [Batch.empty([("x.png", 1)]), *parts]


def normalised(pixels, channels=3):
    mean, std = (np.array(v[:channels])[:, None, None] for v in (MEAN, STD))
    return torch.tensor((pixels - mean) / std, dtype=torch.float32)


def measure(networks, images, fresh, channels=3, seed=3):
    meter = SensitivityMeter(networks, MEAN[:channels], STD[:channels], fresh, seed)
    list(meter.watch(batches(images)))
    return meter.result()


@pytest.fixture
def accelerator(fresh_accelerator):
    return Accelerator(cpu=True)


def changed_by_numpy(pixels, seed):
    """Every change of pixels [N, C, H, W] without a line of the package."""
    right = np.concatenate([pixels[..., :1], pixels[..., :-1]], -1)
    down = np.concatenate([pixels[:, :, :1], pixels[:, :, :1], pixels[:, :, :-2]], 2)
    left = np.concatenate([pixels[..., 3:], *[pixels[..., -1:]] * 3], -1)
    noise = torch.randn(1, *pixels.shape[1:], generator=torch.Generator().manual_seed(seed)).numpy()
    jpeg = []
    for image in np.rint(pixels * 255).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "jpeg", quality=90)
        jpeg.append(np.array(Image.open(buffer)).transpose(2, 0, 1) / 255)
    return {
        "shift by 1 pixel": right,
        "shift by 2 pixels": down,
        "shift by 3 pixels": left,
        "noise": np.clip(pixels + 0.02 * noise, 0, 1),
        "brightness": np.clip(pixels * 1.1, 0, 1),
        "JPEG": np.stack(jpeg),
    }


def test_all_numbers_by_numpy(accelerator):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 3, 9, 11)) / 255
    matrices = {name: rng.normal(size=(5, 3 * 9 * 11)) for name in ("teacher", "student", "control")}
    matrices["student"] += 2 * matrices["teacher"]
    found = measure({name: Linear(matrix) for name, matrix in matrices.items()}, normalised(pixels), accelerator)

    def logits(name, images):
        scaled = (images - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
        return scaled.reshape(len(images), -1) @ matrices[name].T

    assert found.images == 20
    changes = changed_by_numpy(pixels, 3)
    assert [change.name for change in found.changes] == list(changes)
    for change in found.changes:
        moved = {name: logits(name, changes[change.name]) - logits(name, pixels) for name in matrices}
        flips = {n: logits(n, changes[change.name]).argmax(1) != logits(n, pixels).argmax(1) for n in matrices}
        moved = {name: (move - move.mean(1, keepdims=True)).ravel() for name, move in moved.items()}
        assert change.teacher_flips == pytest.approx(100 * flips["teacher"].mean())
        for name in ("student", "control"):
            following = getattr(change, name)
            assert following.correlation == pytest.approx(np.corrcoef(moved[name], moved["teacher"])[0, 1], abs=1e-4)
            ratio = np.linalg.norm(moved[name]) / np.linalg.norm(moved["teacher"])
            assert following.norm_ratio == pytest.approx(ratio, abs=1e-3)
            either, both = flips[name] | flips["teacher"], flips[name] & flips["teacher"]
            assert following.flips == pytest.approx(100 * flips[name].mean())
            assert following.flip_agreement == (round(100 * both.sum() / either.sum(), 2) if either.any() else None)
    assert found.changes[0].student.correlation > 0.8 > 0.3 > abs(found.changes[0].control.correlation)
    assert any(change.teacher_flips for change in found.changes)


def test_the_teacher_itself_follows_in_full_and_its_opposite_not_at_all(accelerator):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(4, 3 * 8 * 8))
    networks = {"student": Linear(matrix), "control": Linear(-2 * matrix), "teacher": Linear(matrix)}
    found = measure(networks, normalised(rng.integers(0, 256, (9, 3, 8, 8)) / 255), accelerator)
    for change in found.changes:
        assert (change.student.correlation, change.student.norm_ratio) == (1, 1)
        assert change.student.flips == change.teacher_flips and change.student.flip_agreement in (100, None)
        assert (change.control.correlation, change.control.norm_ratio) == (-1, 2)
    assert Sensitivity.from_json(found.to_json()) == found


def test_no_number_depends_on_the_batches_and_at_most_so_many_images_are_changed(accelerator):
    rng = np.random.default_rng(2)
    networks = {name: Linear(rng.normal(size=(3, 16))) for name in ("teacher", "student")}
    images = normalised(rng.integers(0, 256, (IMAGES + 30, 1, 4, 4)) / 255, 1)
    meter = SensitivityMeter(networks, MEAN[:1], STD[:1], accelerator, 3)
    results = []
    for size in (100, 37):
        seen = [len(batch.views) for batch in meter.watch(batches(images, size))]
        assert sum(seen) == IMAGES + 30  # the pass itself loses none
        results.append(meter.result())
    assert results[0] == results[1] and results[0].images == IMAGES
    assert results[0] == measure(networks, images[:IMAGES], accelerator, 1)
    assert results[0].changes[0].control is None and len(meter.watch(batches(images, 100))) == 7


def test_two_ranks_measure_together_what_one_measures(accelerator, monkeypatch):
    rng = np.random.default_rng(5)
    networks = {name: Linear(rng.normal(size=(3, 16))) for name in ("teacher", "student", "control")}
    images = normalised(rng.integers(0, 256, (IMAGES + 40, 1, 4, 4)) / 255, 1)
    rank = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    meters = [SensitivityMeter(networks, MEAN[:1], STD[:1], rank, 3) for _ in range(2)]
    for number, meter in enumerate(meters):
        list(meter.watch(batches(images[number::2])))  # as a loader deals them
    parts = [(meter.count, meter.sums) for meter in meters]
    monkeypatch.setattr("dccd_timm.report.sensitivity.gather_object", lambda own: parts)
    together = meters[0].result()
    parts += [(0, torch.zeros(0, 6, 6))]  # a rank that had neither images nor a teacher at hand
    assert meters[0].result() == together
    monkeypatch.undo()
    assert together == measure(networks, images, accelerator, 1) and together.images == IMAGES


def test_without_a_teacher_that_has_classes_there_is_nothing_to_follow(accelerator):
    networks = {"student": Linear(np.ones((3, 16)))}
    assert measure(networks, torch.randn(5, 1, 4, 4), accelerator, 1) is None
    networks["teacher"] = Linear(np.ones((3, 16)))
    networks["teacher"].num_classes = 0  # it gives features only
    assert measure(networks, torch.randn(5, 1, 4, 4), accelerator, 1) is None


def test_half_precision_around_it_does_not_reach_the_networks(accelerator):
    rng = np.random.default_rng(4)
    networks = {name: Linear(rng.normal(size=(3, 48))) for name in ("teacher", "student")}
    images = normalised(rng.integers(0, 256, (6, 3, 4, 4)) / 255)
    plain = measure(networks, images, accelerator)
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(networks, images, accelerator) == plain


def test_a_network_that_never_changes_its_answer_has_no_correlation():
    found = follow([0.0, 2.0, 0.0, 0, 0, 0], 4)
    assert (found.correlation, found.norm_ratio, found.flips, found.flip_agreement) == (None, 0, 0, None)
    found = follow([2.0, 0.0, 0.0, 1, 0, 0], 4)
    assert (found.correlation, found.norm_ratio, found.flips, found.flip_agreement) == (None, None, 25, 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_changes_keep_shape_and_range_and_are_minor(channels):
    pixels = torch.rand(2, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.avg_pool2d(pixels, 5, 1, 2)  # as pictures are
    for name, change in minor_changes(0).items():
        moved = change(smooth)
        assert moved.shape == smooth.shape and moved.min() >= 0 and moved.max() <= 1, name
        assert 0 < (moved - smooth).abs().mean() < 0.1, name
