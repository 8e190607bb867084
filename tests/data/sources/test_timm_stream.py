"""A stream of timm's is read pass after pass, each pass as the next epoch of its reader."""

from dataclasses import replace
from itertools import islice

import pytest
import timm.data
import torch

from dccd_timm.data.build import Rank, build_eval_loader, build_train_loader
from dccd_timm.data.sources.timm_stream import TimmStreamSource
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import picture
from tests.data.loaders import CONFIG, CPU


class Numbers:
    """A reader as timm's: it shards itself over workers and shuffles by the epoch that it is told."""

    epoch = 0

    def __len__(self):
        return 10

    def set_epoch(self, count):
        self.epoch = count

    def set_loader_cfg(self, num_workers):
        self.workers = num_workers

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for number in torch.randperm(10, generator=torch.Generator().manual_seed(self.epoch)).tolist()[first::step]:
            yield picture(number % 3, number), number


class Broken(Numbers):
    """A reader whose images cannot be decoded."""

    def __iter__(self):
        return ((b"broken", number) for _, number in super().__iter__())


def source_of(reader):
    dataset = timm.data.IterableImageDataset.__new__(timm.data.IterableImageDataset)
    dataset.reader = reader
    return TimmStreamSource(dataset, None, len(reader))


def targets(loader, batches):
    return [batch.target.tolist() for batch in islice(loader, batches)]


def test_each_pass_is_the_next_epoch():
    recipe = load_recipe(["-b", "5", "-j", "1"])
    reader = Numbers()
    loader = build_train_loader(recipe, source_of(reader), CONFIG, 10, Rank(CPU))
    assert reader.workers == 1 and loader.batches_per_epoch == 2
    seen = targets(loader, 6)
    passes = [sorted(seen[k] + seen[k + 1]) for k in (0, 2, 4)]
    assert passes == [list(range(10))] * 3 and len({str(seen[k]) for k in (0, 2, 4)}) == 3
    later = build_train_loader(recipe, source_of(Numbers()), CONFIG, 10, Rank(CPU), start_epoch=2)
    assert targets(later, 2) == seen[4:]


def test_an_epoch_that_was_interrupted_is_read_whole_at_any_batch_size(caplog):
    """The reader cannot begin inside a pass: what followed the interruption would be its first images once more."""
    recipe = load_recipe(["--dataset", "wds/flowers", "-b", "5", "-j", "1"])
    whole = build_train_loader(recipe, source_of(Numbers()), CONFIG, 10, Rank(CPU))
    seen = targets(whole, 4)
    for batches, batch_size, begins_anew in ((1, 5, True), (1, 2, True), (2, 5, False)):
        part = build_train_loader(recipe, source_of(Numbers()), CONFIG, 10, Rank(CPU))
        targets(part, batches)
        state, epoch = part.state(), batches // 2
        caplog.clear()
        again = build_train_loader(
            replace(recipe, batch_size=batch_size), source_of(Numbers()), CONFIG, 10, Rank(CPU), epoch, state
        )
        assert again.resumed is not begins_anew and ("starts again" in caplog.text) is begins_anew
        given = [t for batch in targets(again, again.batches_per_epoch) for t in batch]
        assert given == [t for batch in seen[2 * epoch : 2 * epoch + 2] for t in batch]
        part.close(), again.close()
    whole.close()


def test_training_drops_a_short_batch_and_evaluation_keeps_it():
    recipe = load_recipe(["-b", "4", "-j", "0"])
    seen = targets(build_train_loader(recipe, source_of(Numbers()), CONFIG, 10, Rank(CPU)), 4)
    assert [len(batch) for batch in seen] == [4] * 4
    loader = build_eval_loader(recipe, source_of(Numbers()), CONFIG, 10, Rank(CPU))
    assert sorted(t for batch in loader for t in batch.target.tolist()) == list(range(10)) and len(loader) == 3


def test_no_two_records_have_the_same_name():
    """They have no names of their own, and each worker numbers its own."""
    recipe = load_recipe(["-b", "2", "-j", "2", "--max-data-errors", "9"])

    loader = build_eval_loader(recipe, source_of(Broken()), CONFIG, 10, Rank(CPU))
    with pytest.raises(UserError, match="10 images could not be read"):
        for _ in loader:
            pass
