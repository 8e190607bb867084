"""What tests of whole trainings share."""

import pytest

from dccd_timm.run import begin, finish
from tests.conftest import write_folders, write_parquet
from tests.invariants.students import save_teacher
from tests.run.trainings import Trainings


@pytest.fixture
def without_pictures(monkeypatch):
    """A report without pictures: drawing takes longer than a small training."""
    monkeypatch.setattr(begin, "draw_views", lambda *given: None)
    monkeypatch.setattr(finish, "draw_pictures", lambda *given: None)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """24 images in folders and in parquet files, and a teacher of another width than the student."""
    root = tmp_path_factory.mktemp("inputs")
    write_folders(root / "folder", per_class=(8, 2))
    write_parquet(root / "stream", per_class=(8, 2))
    save_teacher(root / "teacher", "test_resnet")
    return root


@pytest.fixture
def run(inputs, tmp_path):
    return Trainings(inputs, tmp_path)
