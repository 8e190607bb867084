"""Numbered images in files, and loaders that end with the test that made them."""

import datasets
import pytest

from dccd_timm.data.loader import TrainLoader
from tests.data.loaders import write_numbered


@pytest.fixture(autouse=True)
def closed_loaders(monkeypatch):
    """Close each training loader after its test: left to the garbage collector, its workers take 5 seconds to end."""
    made = []
    create = TrainLoader.__init__

    def remember(self, *args, **kwargs):
        create(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(TrainLoader, "__init__", remember)
    yield
    for loader in made:
        loader.close()


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    datasets.disable_progress_bars()
    root, made = tmp_path_factory.mktemp("numbered"), {}

    def get(shards, kind="parquet", row_group=None):
        key = f"{kind}-{shards}-{row_group}"
        if key not in made:
            made[key] = write_numbered(root / key, shards, kind, row_group=row_group)
        return made[key]

    return get
