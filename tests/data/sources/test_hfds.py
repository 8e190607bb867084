"""hfds/ has the columns, classes and names of the other readers."""

import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.data.loaders import opened
from tests.data.sources.colours import read, write_table


def test_a_part_of_a_split_can_be_read(tmp_path):
    folder = write_table(tmp_path / "data", [0, 1, 2] * 3)
    flags = ["--dataset", f"hfds/{folder}", "--data-dir", tmp_path / "cache"]
    source, pairs, _ = read(*flags, split="train[:2]")
    assert source.num_samples == 2 and pairs == [(0, 0), (1, 1)]


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
