"""A teacher that keeps its answers: each view is computed once, whole batches at a time, and other views are refused."""

import pytest
import torch

from dccd_timm.batch import Batch, Draws
from dccd_timm.cache.form import Form
from dccd_timm.cache.identity import TeacherFacts
from dccd_timm.cache.store import AnswerStore
from dccd_timm.errors import UserError
from dccd_timm.models.frozen import FrozenTeacher
from dccd_timm.task.answered import AnsweredTeacher
from tests.task.small import resnet

MEAN, STD = (0.5,) * 3, (0.25,) * 3
FACTS = TeacherFacts(
    options={"kd_model_name": "t"}, files="", num_classes=10, num_parameters=1_500_000, has_features=True, input_size=(3, 64, 64), sees="", stages=[], gmacs=None, draws=0,
)  # fmt: skip


class Counted(FrozenTeacher):
    """A teacher that counts the images that it sees."""

    seen = 0

    def forward(self, images, stages=None):
        self.seen += len(images)
        return super().forward(images, stages)


@pytest.fixture
def real():
    return Counted(resnet(), MEAN, STD, (3, 64, 64))


def answered(teacher, folder, load=False):
    store = AnswerStore(folder)
    store.writes = True
    found = AnsweredTeacher(FACTS, store, (lambda: teacher) if load else teacher, MEAN, STD, None)
    found.form = Form("float32", 0.0, 10, 2, (3,), ((24, 2, 2),))
    return found


def batch(seeds, seed=0):
    """Views of images, view-major, and what they were drawn from; an image is its seed."""
    torch.manual_seed(seed)
    pixels = {number: torch.randn(2, 3, 64, 64) for number in range(20)}
    views = torch.stack([pixels[number] for number in seeds])
    sketches = (32 * views[:, :, 1, :4, :4].flatten(2) + 128).clamp(0, 255).to(torch.uint8)
    draws = Draws(torch.tensor(seeds), torch.zeros(len(seeds), dtype=torch.long), sketches)
    return Batch(views, torch.zeros(len(seeds)), draws=draws)


def asked(teacher, given):
    teacher.announce(given)
    logits, (grid,) = teacher(given.views.transpose(0, 1).flatten(0, 1), [3])
    return logits, grid


def test_an_answer_is_computed_once_and_read_in_any_order(real, tmp_path):
    teacher = answered(real, tmp_path)
    logits, grid = asked(teacher, batch([3, 1, 2, 7]))
    assert logits.shape == (8, 10) and grid.shape == (8, 24, 2, 2) and real.seen == 8
    teacher.store.flush()
    late = answered(real, tmp_path, load=True)
    others = asked(late, batch([7, 3, 2, 1]))
    assert real.seen == 8 and late.loaded is None
    order = [3, 0, 2, 1]
    for kept, first in zip(others, (logits, grid), strict=True):
        assert torch.equal(kept.unflatten(0, (2, 4)), first.unflatten(0, (2, 4))[:, order])


def test_missing_answers_load_the_teacher_and_are_kept(real, tmp_path):
    teacher = answered(real, tmp_path)
    expected = asked(teacher, batch([1, 2, 3, 4]))
    teacher.store.flush()
    late = answered(real, tmp_path, load=True)
    found = asked(late, batch([1, 9, 3, 4]))
    assert late.loaded is real and real.seen == 16  # the whole batch
    assert torch.equal(found[0][[0, 2, 3]], expected[0][[0, 2, 3]])
    late.store.flush()
    late.store.refresh()
    assert late.store.counts() == {0: 5}


def test_images_that_were_not_announced_are_computed_by_itself(real, tmp_path):
    teacher = answered(real, tmp_path, load=True)
    images = torch.randn(3, 3, 64, 64)
    assert torch.equal(teacher(images), real(images)) and teacher.loaded is real
    assert torch.equal(teacher.forward_head(teacher.forward_features(images)), real(images))
    teacher.store.flush()
    assert not list(tmp_path.iterdir())


def test_other_views_are_refused(real, tmp_path):
    teacher = answered(real, tmp_path)
    asked(teacher, batch([1, 2]))
    teacher.store.flush()
    teacher.store.refresh()
    rounded = batch([2, 1])
    rounded.draws.sketches = (rounded.draws.sketches.int() + 1).clamp(0, 255).to(torch.uint8)
    asked(teacher, rounded)  # another machine's rounding
    with pytest.raises(UserError, match="2 images of a batch are not those that the answers in .* belong to"):
        asked(teacher, batch([1, 2], seed=1))


def test_what_it_says_without_being_loaded(real, tmp_path):
    teacher = answered(real, tmp_path, load=True)
    assert teacher.num_classes == 10 and teacher.num_parameters == 1_500_000 and not teacher.training
    assert teacher.input_size((3, 32, 32)) == (3, 64, 64) and teacher.conversions((3, 64, 64)) == ""
    assert not list(teacher.parameters())
    assert len(teacher.stage_shapes((3, 64, 64))) == 4  # they were not kept: the teacher is asked
