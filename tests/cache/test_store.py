"""Answers are found by what views were drawn from, whoever wrote them; what is torn is missing, and a full disk ends
the writing alone."""

import errno

import torch

from dccd_timm.cache import store as module
from dccd_timm.cache.store import AnswerStore


def add(store, seeds, epoch=0, value=0.0):
    seeds = torch.tensor(seeds)
    store.add(seeds, torch.full_like(seeds, epoch), {"logits": seeds[:, None] + value + torch.zeros(len(seeds), 3)})


def writer(folder):
    store = AnswerStore(folder)
    store.writes = True
    return store


def read(store, *seeds):
    rows, found = store.read(torch.tensor(seeds))
    return [rows["logits"][k, 0].item() if found[k] else None for k in range(len(seeds))]


def test_several_writers_and_any_reader(tmp_path):
    first, second = writer(tmp_path), writer(tmp_path)
    add(first, [5, 3])
    add(second, [9, 1], epoch=1)
    add(second, [4], epoch=1)
    assert read(first, 5) == [None]  # not before it is written
    first.flush(), second.flush()
    first.refresh()
    assert read(first, 9, 7, 3, 5, 1, 4) == [9, None, 3, 5, 1, 4]
    late = AnswerStore(tmp_path)
    assert late.counts() == {0: 2, 1: 3} and read(late, 4, 5) == [4, 5] and late.num_bytes > 0
    add(late, [8])
    late.flush()
    assert len(list(tmp_path.iterdir())) == 2  # it only reads


def test_the_later_of_two_rows_counts(tmp_path):
    store = writer(tmp_path)
    for value in (0.25, 0.5):
        add(store, [3], value=value)
        store.flush()
    store.refresh()
    assert read(store, 3) == [3.5] and store.counts() == {0: 1}


def test_many_answers_are_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SHARD_BYTES", 100)
    store = writer(tmp_path)
    for seed in range(30):
        add(store, [seed])
    store.flush()
    store.refresh()
    assert len(store.shards) > 2 and read(store, *range(30)) == list(range(30))


def test_what_is_torn_is_missing_until_it_is_written_again(tmp_path, caplog):
    store = writer(tmp_path)
    add(store, [1, 2])
    store.flush()
    add(store, [3])
    store.flush()
    whole, cut = sorted(tmp_path.iterdir())
    cut.write_bytes(cut.read_bytes()[:-1])
    data = bytearray(whole.read_bytes())
    data[-1] ^= 8
    whole.write_bytes(data)
    store = writer(tmp_path)
    assert f"{cut} is damaged, and its answers are computed again" in caplog.text
    found = read(store, 1, 2, 3)
    assert found.count(None) == 2 and found[2] is None and f"{whole} is damaged in places" in caplog.text
    assert read(store, 1, 2, 3) == found and caplog.text.count("in places") == 1
    add(store, [1, 2, 3])
    store.flush()
    store.refresh()
    assert read(store, 1, 2, 3) == [1, 2, 3] == read(AnswerStore(tmp_path), 1, 2, 3)


def test_a_full_disk_ends_the_writing_in_one_line(tmp_path, caplog, monkeypatch):
    store = writer(tmp_path)
    add(store, [1])
    store.flush()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_shard", full)
    add(store, [2])
    store.flush()
    assert caplog.messages == [
        f"{tmp_path} cannot be written ([Errno 28] No space left on device): the run goes on and keeps no more of the"
        " teacher's answers"
    ]
    add(store, [3])
    store.flush()
    store.refresh()
    assert len(caplog.messages) == 1 and read(store, 1, 2, 3) == [1, None, None]
