"""What files say goes before what a card says: how many images there are, and what their classes are called."""

import io
import json
import tarfile

import pytest

from dccd_timm.errors import UserError
from tests.data.sources.colours import ANIMALS, coloured, flags_for, read, write_table

CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names: {{'0': {}, '1': {}, '2': {}}}
  splits:
  - name: train
    num_bytes: 1
    num_examples: {}
configs:
- config_name: default
  data_files:
  - split: train
    path: train*
---
"""
RIGHT = [(0, 0), (1, 1), (2, 2)]


def named(*names):
    """The metadata by which datasets names the classes of a file."""
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def test_a_card_with_another_number_of_images_is_corrected(tmp_path, caplog):
    """It made 50 updates an epoch where there are 3."""
    folder = write_table(tmp_path, [0, 1, 2] * 2)
    (folder / "README.md").write_text(CARD.format(*ANIMALS, 400))
    source, pairs, _ = read("--dataset", f"hfids/{folder}")
    assert source.num_samples == 6 and pairs == RIGHT and source.names == ANIMALS
    assert "the data set's card says 400 images, its files have 6" in caplog.text


def test_the_number_that_a_user_gives_is_his(tmp_path):
    folder = write_table(tmp_path, [0, 1, 2] * 2)
    assert read("--dataset", f"hfids/{folder}", "--val-num-samples", 4)[0].num_samples == 4


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_a_card_with_the_names_in_another_order_is_corrected(origin, tmp_path, caplog):
    folder = write_table(tmp_path / "data", [0, 1, 2] * 2, metadata=named(*ANIMALS))
    (folder / "README.md").write_text(CARD.format("cat", "bee", "ant", 6))
    source, pairs, _ = read(*flags_for(origin, folder))
    assert (source.names, pairs) == (ANIMALS, RIGHT) and "in another order than the files" in caplog.text


def test_a_card_may_give_other_names(tmp_path, caplog):
    folder = write_table(tmp_path, [0, 1, 2] * 2, metadata=named("n01", "n02", "n03"))
    (folder / "README.md").write_text(CARD.format(*ANIMALS, 6))
    source, pairs, _ = read("--dataset", f"hfids/{folder}")
    assert (source.names, pairs) == (
        ANIMALS,
        RIGHT,
    ) and "other class names than the files (n01, n02, n03" in caplog.text


def test_each_split_has_the_names_of_its_own_files(tmp_path):
    """Those of the first split's were taken for all."""
    write_table(tmp_path, [0, 1, 2] * 2, metadata=named(*ANIMALS))
    folder = write_table(tmp_path, [0, 1, 2] * 2, name="test", metadata=named("cat", "bee", "ant"))
    assert read("--dataset", f"hfids/{folder}")[0].names == ANIMALS
    assert read("--dataset", f"hfids/{folder}", split="test")[0].names == ["cat", "bee", "ant"]


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_files_that_number_their_classes_otherwise_are_refused(origin, tmp_path):
    flags = flags_for(origin, tmp_path / "data")
    write_table(tmp_path / "data", [0, 1, 2] * 2, "train-0", metadata=named(*ANIMALS))
    write_table(tmp_path / "data", [0, 1, 0], "train-1", metadata=named(*ANIMALS[:2]))
    assert read(*flags)[0].names == ANIMALS  # it has none of the third
    write_table(tmp_path / "data", [0, 1, 2] * 2, "train-2", metadata=named("cat", "bee", "ant"))
    with pytest.raises(UserError, match=r"train-2.parquet numbers the classes of column label otherwise than train-0"):
        read(*flags)


def test_a_shard_with_one_more_column_is_read(tmp_path):
    """All of its images were left out."""
    folder = write_table(tmp_path, [0, 1, 2] * 2, "train-0")
    write_table(tmp_path, [0, 1, 2] * 3, "train-1", width=[8] * 9)
    source, pairs, skipped = read("--dataset", f"hfids/{folder}")
    assert source.num_samples == 15 and pairs == RIGHT and skipped == []


def test_a_shard_with_names_where_others_have_indices_is_read(tmp_path):
    folder = write_table(tmp_path, [0, 1, 2], "train-0", metadata=named(*ANIMALS))
    write_table(tmp_path, ANIMALS, "train-1")
    _, pairs, skipped = read("--dataset", f"hfids/{folder}")
    assert pairs == RIGHT and skipped == []


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_only_images_of_samples_are_counted_in_tars(ending, tmp_path):
    """macOS adds ``._x.png``, and ``x.seg.png`` is another field: an epoch was twice as long."""
    with tarfile.open(tmp_path / f"train-0000.{ending}", "w:gz" if ending.endswith("gz") else "w") as tar:
        for n in range(6):
            for name, data in (
                (f"./._{n:04d}.png", b"\0\5\26\7"), (f"./{n:04d}.png", coloured(n)),
                (f"./{n:04d}.seg.png", coloured(n + 1)), (f"./{n:04d}.cls", str(n % 3).encode()),
            ):  # fmt: skip
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    source, pairs, _ = read("--dataset", f"hfids/{tmp_path}")
    assert (source.num_samples, pairs, source.columns) == (6, RIGHT, ("png", "cls"))
