"""What timm cannot open is one line with the cause."""

from pathlib import Path

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


@pytest.mark.parametrize(
    ("where", "file"),
    [("", "data/train-0.parquet"), ("", "train.parquet"), ("data", "data/x.parquet"), ("", "a.arrow"),
     ("data", "data/a.zip"), ("", "a.tar.gz")],
)  # fmt: skip
def test_a_folder_of_tables_or_archives_says_how_they_are_read(where, file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"PAR1")
    folder = tmp_path / where
    others = {".arrow": "with to_parquet", ".gz": f"--data-dir FILE.tar for a tar .* or --dataset hfids/{folder} for"}
    wanted = others.get(Path(file).suffix, f"--dataset hfids/{folder} in place")
    with pytest.raises(UserError, match=wanted):
        opened(load_recipe(["--data-dir", str(folder)]))
    if where:
        with pytest.raises(UserError, match=f"--dataset hfids/{folder} in place"):
            opened(load_recipe(["--data-dir", str(tmp_path / file)]))


@pytest.mark.parametrize(
    ("dataset", "packages"), [("tfds/mnist", "tensorflow tensorflow-datasets"), ("wds/shards", "webdataset")]
)
def test_a_reader_without_its_package_is_one_line_and_nothing_else(dataset, packages, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"--dataset {dataset} needs a package .*: pip install {packages}$"):
        opened(load_recipe(["--dataset", dataset, "--data-dir", "/tmp"]))
    assert capsys.readouterr().out == ""


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
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # webdataset, which tests do without
    source = opened(load_recipe(["--dataset", "wds/somewhere"]))
    assert isinstance(source, TimmStreamSource) and (source.num_samples, source.names) == (7, None)
