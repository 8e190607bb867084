"""Every kind of source gives the same images, classes and names, however they are stored."""

import datasets
import pytest

from dccd_timm.data.sources import open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES
from tests.data.sources.reading import seen


def test_parquet_and_image_folders_by_every_reader_are_the_same(parquet, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    expected = seen("--data-dir", folders)
    assert expected[0] == CLASSES and sum(expected[1].values()) == 48
    assert seen("--dataset", f"hfids/{parquet}") == expected
    assert seen("--dataset", f"hfids/{folders}") == expected
    assert seen("--dataset", f"hfds/{parquet}")[1] == expected[1]


@pytest.mark.parametrize("flags", [[], ["--data-dir", "."]])
def test_a_name_without_a_reader_is_refused(flags, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name, words in (
        ("alice/good", "names no reader: give hfids/alice/good, or --data-dir FOLDER"),
        ("mine", "names no reader: give hfids/mine, or --data-dir mine"),
        (str(folders), f"give hfids/{folders}, or --data-dir {folders}"),
        ("imagenet", "give hfids/imagenet"),
    ):
        with pytest.raises(UserError, match=words):
            open_split(load_recipe(["--dataset", name, *flags]), "train", True, None)
