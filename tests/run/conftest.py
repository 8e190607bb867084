"""What tests of whole trainings share."""

import pytest

from dccd_timm.run import begin, finish


@pytest.fixture
def without_pictures(monkeypatch):
    """A report without pictures: drawing takes longer than a small training."""
    monkeypatch.setattr(begin, "draw_views", lambda *given: None)
    monkeypatch.setattr(finish, "draw_pictures", lambda *given: None)
