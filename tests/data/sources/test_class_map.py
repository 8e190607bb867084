"""A class map numbers all classes of a data set, whichever reader opens it, or is refused by name."""

import pickle

import datasets
import pytest

from dccd_timm.data.sources.class_map import read_class_map
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.data.sources.colours import ANIMALS, flags_for, read, write_pictures, write_table

REVERSED = [(0, 2), (1, 1), (2, 0)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Flags that read the same nine pictures in every way."""
    root = tmp_path_factory.mktemp("sources")
    kinds = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=ANIMALS))
    indexed = write_table(root / "indexed", [0, 1, 2] * 3)
    datasets.Dataset.from_parquet(str(indexed / "train.parquet"), cache_dir=root / "hf").cast(kinds).to_parquet(
        indexed / "train.parquet"
    )
    named = write_table(root / "named", ANIMALS * 3)
    pictures = write_pictures(root / "folder" / "train").parent
    return {
        "hfids ClassLabel": flags_for("hfids", indexed),
        "hfds ClassLabel": flags_for("hfds", indexed),
        "hfids text": flags_for("hfids", named),
        "hfds text": flags_for("hfds", named),
        "hfids folder": flags_for("hfids", pictures),
        "folder": ["--data-dir", str(pictures)],
    }


KINDS = ["hfids ClassLabel", "hfds ClassLabel", "hfids text", "hfds text", "hfids folder", "folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_permutes_indices_and_names(kind, sources, tmp_path):
    """Only the names were taken from it where the data has indices: a picture of "ant" was published as a cat."""
    (tmp_path / "map.txt").write_text("cat\nbee\nant\n")
    source, pairs, _ = read(*sources[kind], "--class-map", tmp_path / "map.txt")
    assert source.names == ["cat", "bee", "ant"] and pairs == REVERSED


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_that_lacks_a_class_is_refused(kind, sources, tmp_path):
    (tmp_path / "map.txt").write_text("ant\nbee\nctas\n")
    with pytest.raises(UserError, match=r"--class-map .*map.txt has no class 'cat'.*must name every class"):
        read(*sources[kind], "--class-map", tmp_path / "map.txt")


def test_the_misspelt_name_is_named(sources, tmp_path):
    (tmp_path / "map.txt").write_text("ant\nbee\nctas\n")
    with pytest.raises(UserError, match="has no class 'cat', only 'ctas'"):
        read(*sources["folder"], "--class-map", tmp_path / "map.txt")


def test_classes_without_images_are_named(sources, tmp_path, caplog):
    (tmp_path / "map.txt").write_text("ant\nbee\ncat\ndog\n")
    source, pairs, _ = read(*sources["folder"], "--class-map", tmp_path / "map.txt")
    assert source.names == [*ANIMALS, "dog"] and pairs == [(0, 0), (1, 1), (2, 2)]
    assert "the data set has no class 'dog'" in caplog.text


def table(tmp_path, content, name="map.txt"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_class_map(load_recipe(["--data-dir", str(tmp_path), "--class-map", str(file)]))


@pytest.mark.parametrize("text", ["ant\nbee\n", "ant\r\nbee\r\n", "ant\nbee\n\n \n", "\ufeffant\nbee", " ant \nbee"])
def test_line_ends_and_byte_order_marks_are_no_part_of_a_name(text, tmp_path):
    assert table(tmp_path, text).table == {"ant": 0, "bee": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("ant\n\nbee", "line 2 is empty"),
        ("ant\nbee\nant", "line 3 repeats 'ant'"),
        ("ant\nbee".encode("utf-16"), "codec can't decode"),
    ],
)
def test_what_numbers_nothing_is_refused(text, message, tmp_path):
    with pytest.raises(UserError, match=f"--class-map .*map.txt cannot be read: .*{message}"):
        table(tmp_path, text)


def test_pickled_maps_may_merge_classes_and_leave_gaps(tmp_path):
    merged = table(tmp_path, pickle.dumps({"ant": 0, "bee": 0, "cat": 2}), "map.pkl")
    assert merged.names == ["ant or bee", "1", "cat"] and merged.indices(ANIMALS) == [0, 0, 2]
    numbers = table(tmp_path, pickle.dumps({0: 1, 1: 0}), "map.pkl")
    assert numbers.indices(["ant", "bee"]) == [1, 0]
    for wrong in ({}, {"ant": -1}, {"ant": "0"}, ["ant"]):
        with pytest.raises(UserError, match=r"map.pkl cannot be read"):
            table(tmp_path, pickle.dumps(wrong), "map.pkl")
