"""hfds/ has the columns, classes and names of the other readers."""

import datasets
import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.data.loaders import opened
from tests.data.sources.colours import coloured, flags_for, read, write_table


def test_a_part_of_a_split_can_be_read(tmp_path):
    folder = write_table(tmp_path / "data", [0, 1, 2] * 3)
    flags = ["--dataset", f"hfds/{folder}", "--data-dir", tmp_path / "cache"]
    source, pairs, _ = read(*flags, split="train[:2]")
    assert source.num_samples == 2 and pairs == [(0, 0), (1, 1)]


def test_a_part_of_a_split_is_named_with_the_reader_that_has_it(tmp_path):
    folder = write_table(tmp_path, [0, 1, 2])
    with pytest.raises(UserError, match=rf"parts of a split only with hfds/: --dataset hfds/{folder}$"):
        opened(load_recipe(["--dataset", f"hfids/{folder}"]), "train[:50%]", False)


@pytest.mark.parametrize("kind", ["csv", "json", "arrow"])
@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_tables_that_are_no_parquet_are_read_or_ask_for_their_size(kind, origin, tmp_path):
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / f"{n}.png") for n in range(6)], "label": [0, 1, 2] * 2})
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(coloured(number))
    folder = tmp_path / "data"
    folder.mkdir()
    if kind == "arrow":
        rows.save_to_disk(folder)
    else:
        getattr(rows, f"to_{kind}")(folder / f"train.{kind}")
    if origin == "hfids":
        with pytest.raises(UserError, match="give --val-num-samples, or read hfds/ in place of hfids/"):
            read(*flags_for(origin, folder))
    source, pairs, skipped = read(*flags_for(origin, folder), *(["--val-num-samples", 6] * (origin == "hfids")))
    assert (source.num_samples, pairs, skipped) == (6, [(0, 0), (1, 1), (2, 2)], [])


def test_what_is_not_there_is_one_line(tmp_path):
    folder = write_table(tmp_path / "data", [0, 1, 2])
    for name, split, message in (
        (folder, "train[:0]", "split train.*corresponds to no data"),
        (folder, "test", 'data set hfds/.*, split test: Unknown split "test"'),
        (tmp_path / "nothing", "train", "data folder .*nothing does not exist"),
    ):
        with pytest.raises(UserError, match=message) as info:
            opened(load_recipe(["--dataset", f"hfds/{name}", "--data-dir", str(tmp_path / "cache")]), split, False)
        assert "\n" not in str(info.value)
