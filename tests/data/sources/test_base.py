"""What a new source has to bring: a class that says how it is read, and its line in the table of openers."""

import pytest
import torch
from torch.utils.data import DataLoader

from dccd_timm.data import sources
from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.data.decode import Record
from dccd_timm.data.sources import Source
from dccd_timm.data.sources.base import common_folder
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES, picture
from tests.data.loaders import CONFIG, CPU, opened


class Drawn(IndexedSource):
    """Pictures that are drawn when they are read."""

    def __init__(self):
        self.names, self.num_samples = CLASSES, 12

    def record(self, index):
        return Record(picture(index % 3, index), index % 3, self.name(index))

    def name(self, index):
        return f"picture {index}"


class Repeated(Source):
    """One picture in every batch, by a loader of its own."""

    names, num_samples = None, 4

    def train_loader(self, reading, order):
        sample = reading.reader.sample(Record(picture(0, 0), 0, "it"), order.given)
        return DataLoader([sample] * 4, batch_size=reading.batch_size, collate_fn=reading.collate)

    def eval_loader(self, reading):
        return self.train_loader(reading, None)


def test_a_new_source_is_a_class_and_a_line(monkeypatch):
    monkeypatch.setitem(sources._OPENERS, "drawn", lambda images, split, is_training, num_samples: Drawn())
    recipe = load_recipe(["--dataset", "drawn/12", "-b", "4", "-j", "0", "--dccd-views", "2"])
    source = opened(recipe)
    loader = build_train_loader(recipe, source, CONFIG, 3, Rank(CPU))
    batches = [batch for _, batch in zip(range(3), loader, strict=False)]
    assert loader.batches_per_epoch == 3 and batches[0].views.shape == (4, 2, 3, 16, 16)
    assert sorted(t for batch in batches for t in batch.target.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    resumed = build_train_loader(recipe, source, CONFIG, 3, Rank(CPU), state=loader.state())
    assert loader.state()["given"] == 3 and resumed.position.given == 3
    seen = [t for batch in build_eval_loader(recipe, source, CONFIG, 3, Rank(CPU)) for t in batch.target.tolist()]
    assert seen == [0, 1, 2] * 4


def test_a_source_need_only_say_how_it_is_read():
    source = Repeated()
    assert source.fit_workers(3, 2) == 3 and source.layout(3) == {} and source.shuffle_block is None
    recipe = load_recipe(["-b", "2", "-j", "0"])
    batch = build_train_loader(recipe, source, CONFIG, 3, Rank(CPU)).peek()
    assert batch.views.shape == (2, 1, 3, 16, 16) and torch.equal(batch.views[0], batch.views[1])


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (["/data/train-0.tar"], "/data/"),
        (["/data/a/0.tar", "/data/b/0.tar"], "/data/"),
        (["hf://a/b@c/d/x1/0.tar", "hf://a/b@c/d/x2/0.tar"], "hf://a/b@c/d/"),
    ],
)
def test_names_in_messages_are_those_below_the_common_folder(paths, folder):
    assert common_folder(paths) == folder
