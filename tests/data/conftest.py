"""Loaders end with the test that made them."""

import pytest

from dccd_timm.data.loader import TrainLoader


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
