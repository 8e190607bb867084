"""Files of answers: mapped into memory, and no row that has changed since is taken for whole."""

import pytest
import safetensors
import torch

from dccd_timm.cache.shards import open_shard, write_shard


def rows(count=6):
    torch.manual_seed(1)
    return {"logits": torch.randn(count, 2, 5), "sketches": torch.randint(0, 255, (count, 2, 16), dtype=torch.uint8)}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "answers-000001-ab.safetensors"
    write_shard(file, torch.arange(6) + 100, torch.zeros(6, dtype=torch.long), rows())
    return file


def test_rows_come_back(path):
    shard = open_shard(path)
    found, whole = shard.read(torch.tensor([4, 0]))
    assert whole.all() and torch.equal(found["logits"], rows()["logits"][[4, 0]])
    assert shard.seeds.tolist() == list(range(100, 106)) and not list(path.parent.glob(".*"))


def test_a_byte_that_changed_spoils_its_row_alone(path):
    data = bytearray(path.read_bytes())
    place = data.index(rows()["logits"][3].numpy().tobytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert open_shard(path).read(torch.arange(6))[1].tolist() == [True, True, True, False, True, True]


def test_a_seed_that_changed_spoils_its_row(path):
    data = bytearray(path.read_bytes())
    place = data.index(torch.arange(100, 106).numpy().tobytes())
    data[place] = 102  # an answer of another image
    path.write_bytes(data)
    assert open_shard(path).read(torch.arange(6))[1].tolist() == [False] + 5 * [True]


def test_a_file_that_is_cut_short_is_refused(path):
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(safetensors.SafetensorError):
        open_shard(path)
