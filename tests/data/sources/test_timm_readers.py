"""What timm cannot open is one line with the cause."""

import pytest
import timm.data

from dccd_timm.data.sources.timm_map import TimmMapSource
from dccd_timm.data.sources.timm_stream import TimmStreamSource
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES
from tests.data.loaders import opened


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no data: set --data-dir FOLDER, or --dataset hfids/FOLDER"),
        (["--data-dir", "/no/where"], "data folder /no/where does not exist"),
        (["--dataset", "torch/nothing", "--data-dir", "/tmp"], "data set torch/nothing, split train: .+"),
    ],
)
def test_it_is_one_line(flags, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(load_recipe(flags))
    assert "\n" not in str(caught.value)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "train" / "circle").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no images|Found 0 images"):
        opened(load_recipe(["--data-dir", str(tmp_path)]))


def test_readers_with_random_access_and_streams_are_told_apart(folders, monkeypatch):
    source = opened(load_recipe(["--data-dir", str(folders)]))
    assert isinstance(source, TimmMapSource) and source.names == CLASSES

    class Stream(timm.data.IterableImageDataset):
        def __init__(self):
            self.reader = [("image", 1)] * 7

    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, **__: Stream())
    source = opened(load_recipe(["--dataset", "wds/somewhere"]))
    assert isinstance(source, TimmStreamSource) and (source.num_samples, source.names) == (7, None)
