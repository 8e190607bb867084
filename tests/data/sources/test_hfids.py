"""hfids/ data sets are found, and their columns and classes are found or asked for."""

from collections import Counter

import datasets
import pytest

from dccd_timm.data.sources import hfids, open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe, load_validation
from tests.conftest import CLASSES, encoded, picture
from tests.data.loaders import opened as opened_split
from tests.data.sources.reading import seen


def test_columns_are_found_or_asked_for(tmp_path):
    table = {"picture": [{"bytes": b"x", "path": None}], "kind": [1], "text": ["a"]}
    kinds = datasets.Features(picture=datasets.Image(), kind=datasets.Value("int64"), text=datasets.Value("string"))
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(table, features=kinds).to_parquet(tmp_path / "data" / "train.parquet")

    def opened(*flags):
        return opened_split(load_recipe(["--dataset", f"hfids/{tmp_path}", *flags]))

    with pytest.raises(UserError, match="no class column found among picture, kind, text: name it with --target-key"):
        opened()
    source = opened("--target-key", "kind")
    assert (source.image_key, source.target_key, source.names, source.num_samples) == ("picture", "kind", None, 1)


def test_folders_relative_to_data_dir_and_empty_ones(parquet, tmp_path):
    recipe = load_recipe(["--dataset", f"hfids/{parquet.name}", "--data-dir", str(parquet.parent)])
    assert opened_split(recipe).num_samples == 48
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        opened_split(load_recipe(["--dataset", f"hfids/{tmp_path}/empty"]))


def test_class_names_need_a_class_map(tmp_path):
    table = {"image": [{"bytes": encoded(picture(n % 3, n)), "path": None} for n in range(9)], "kind": CLASSES * 3}
    features = datasets.Features(image=datasets.Image(), kind=datasets.Value("string"))
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    words = ["--dataset", f"hfids/{tmp_path / 'data'}", "--target-key", "kind"]
    with pytest.raises(UserError, match="kind has names, not class indices: map them with --class-map FILE"):
        seen(*words)
    (tmp_path / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    names, found = seen(*words, "--class-map", tmp_path / "classes.txt")
    assert names == CLASSES[::-1] and Counter(t for t, _ in found.elements()) == {0: 3, 1: 3, 2: 3}
    with pytest.raises(UserError, match=r"--class-map .*none.txt cannot be read"):
        seen(*words, "--class-map", tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("https://huggingface.co/datasets/alice/good", "is an address: the data set is hfids/alice/good"),
        ("datasets/alice/good/tree/main", "the data set is hfids/alice/good"),
        ("alice/good@v1", "of hfids/alice/good is --dataset-revision v1"),
        ("no/such/folder", "data folder no/such/folder does not exist"),
    ],
)
def test_a_name_that_is_none_is_told_how_to_be_one(name, words):
    with pytest.raises(UserError, match=words):
        opened_split(load_recipe(["--dataset", f"hfids/{name}"]))


@pytest.mark.parametrize(
    ("offline", "error", "words"),
    [
        (True, ConnectionError("Couldn't reach 'alice/good' on the Hub"), "OFFLINE is set, and there is no copy of it"),
        (False, RuntimeError("Dataset scripts are no longer supported, but found good.py"), "refs/convert/parquet"),
    ],
)
def test_what_no_waiting_helps_is_said_at_once(offline, error, words, monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append(arguments)
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    monkeypatch.setattr("dccd_timm.data.sources.hfids.is_offline", lambda: offline)
    monkeypatch.setattr("dccd_timm.network.time.sleep", asked.append)
    with pytest.raises(UserError, match=words) as caught:
        opened_split(load_recipe(["--dataset", "hfids/alice/good"]))
    assert len(asked) == 1 and str(error) in str(caught.value) and "--resume" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "is_training", "flag"),
    [
        ("train", True, "--train-num-samples"),
        ("train", False, "--val-num-samples"),
        ("validate", False, "--num-samples"),
    ],
)
def test_a_stream_of_unknown_size_names_the_option_of_the_program(program, is_training, flag, parquet, monkeypatch):
    monkeypatch.setattr(hfids, "count_images", lambda *_: None)
    words = ["--dataset", f"hfids/{parquet}"]
    options = load_recipe(words) if program == "train" else load_validation(["--model", "resnet18", *words])
    with pytest.raises(UserError, match=f"does not say how many images split train has: give {flag}, or read hfds/"):
        open_split(options, "train", is_training, None)
