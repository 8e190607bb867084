"""Every kind of source gives the same images, classes and names, however they are stored."""

import datasets

from tests.conftest import CLASSES
from tests.data.sources.reading import seen


def test_parquet_and_image_folders_by_every_reader_are_the_same(parquet, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    expected = seen("--data-dir", folders)
    assert expected[0] == CLASSES and sum(expected[1].values()) == 48
    assert seen("--dataset", f"hfids/{parquet}") == expected
    assert seen("--dataset", f"hfids/{folders}") == expected
    assert seen("--dataset", f"hfds/{parquet}")[1] == expected[1]
