"""Columns are chosen by their usual names, and every type of class column is read right or refused when it is opened."""

import io
import json
import tarfile

import datasets
import pyarrow as pa
import pytest

from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.data.loaders import opened
from tests.data.sources.colours import ANIMALS, coloured, flags_for, read, write_table

RIGHT = [(0, 0), (1, 1), (2, 2)]
NUMBERS = [0, 1, 2] * 3
NAMES = ANIMALS * 3


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"])
def test_numbers_of_every_type_are_indices(kind, origin, tmp_path):
    values = pa.array(NUMBERS, getattr(pa, kind)())
    source, pairs, skipped = read(*flags_for(origin, write_table(tmp_path / "data", values)))
    assert pairs == RIGHT and skipped == [] and source.columns == ("image", "label")


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_names_of_every_type_need_a_class_map(kind, origin, tmp_path):
    """pandas and polars write large_string and dictionaries; they ended in a traceback."""
    values = pa.array(NAMES).dictionary_encode() if kind == "dictionary" else pa.array(NAMES, getattr(pa, kind)())
    flags = flags_for(origin, write_table(tmp_path / "data", values))
    advice = "column label has names, not class indices: map them with --class-map FILE, a .txt of one name a line"
    with pytest.raises(UserError, match=advice):
        read(*flags)
    (tmp_path / "map.txt").write_text("ant\nbee\ncat")
    source, pairs, _ = read(*flags, "--class-map", tmp_path / "map.txt")
    assert pairs == RIGHT and source.names == ANIMALS


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_truth_values_are_two_classes(origin, tmp_path):
    source, pairs, _ = read(*flags_for(origin, write_table(tmp_path / "data", [n % 3 == 1 for n in range(9)])))
    assert source.names == ["False", "True"] and pairs == [(0, 0), (0, 2), (1, 1)]


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize("empty", [None, float("nan")])
def test_images_without_a_class_are_counted(empty, origin, tmp_path):
    values = pa.array([0.0, 1.0, 2.0, empty], pa.float64(), from_pandas=False)
    _, pairs, skipped = read(*flags_for(origin, write_table(tmp_path / "data", values)))
    assert pairs == RIGHT and len(skipped) == 1 and "(no class)" in skipped[0]


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.5, 2.0], "column label has the value 1.5, which is no class index"),
        ([0.0, float("inf"), 2.0], "column label has the value inf, which is no class index"),
        ([0, -1, 2], "column label has the class index -1, which marks images without a class"),
        (
            [[0], [1], [2]],
            "column label holds lists and not one class index an image: choose another by --target-key"
            "; several labels of an image cannot be distilled",
        ),
        ([b"ant", b"bee", b"cat"], "column label holds binary and not one class index"),
        ([{"a": 1}] * 3, "column label holds fields, not one class: name one of label/a"),
    ],
)
def test_what_is_no_class_is_refused_when_the_split_is_opened(values, message, origin, tmp_path):
    folder = write_table(tmp_path / "data", values)
    with pytest.raises(UserError, match=message) as info:
        opened(load_recipe(flags_for(origin, folder)))
    assert "\n" not in str(info.value)


def test_a_value_in_a_tar_that_is_no_class_stops_the_run(tmp_path):
    """Tars are not read when they are opened: in a worker it is no broken shard."""
    flags = flags_for("hfids", write_tar(tmp_path / "data", [{"label": 0.5 * n} for n in range(6)]))
    with pytest.raises(UserError, match="column json/label has the value 0.5, which is no class index"):
        read(*flags)


def write_tar(folder, labels):
    members = [
        (f"{number:04d}.{ending}", data)
        for number, label in enumerate(labels)
        for ending, data in (("png", coloured(number)), ("json", json.dumps(label).encode()))
    ]
    return write_members(folder, members)


def write_members(folder, members):
    folder.mkdir()
    with tarfile.open(folder / "train-0000.tar", "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
@pytest.mark.parametrize(
    ("image", "classes", "message"),
    [
        ("{n}.png", ("{n}.cls", "{name}"), ".cls files hold class indices: write names as .txt files, and give"),
        ("v1.{n}.png", ("v1.{n}.cls", "{index}"), "share their name up to its first dot"),
        ("{name}/{n}.png", None, "class folders in a tar are read by --data-dir FILE.tar"),
    ],
)
def test_tars_of_another_form_say_which_form_is_read(origin, image, classes, message, tmp_path):
    members = []
    for n in range(6):
        values = {"n": n, "name": ANIMALS[n % 3], "index": n % 3}
        members.append((image.format(**values), coloured(n)))
        members += [(classes[0].format(**values), classes[1].format(**values).encode())] if classes else []
    with pytest.raises(UserError, match=message) as info:
        opened(load_recipe(flags_for(origin, write_members(tmp_path / "data", members))))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_names_in_a_tar_are_mapped(origin, tmp_path):
    members = [(f"{n}.{e}", d) for n in range(6) for e, d in (("png", coloured(n)), ("txt", ANIMALS[n % 3].encode()))]
    flags = flags_for(origin, write_members(tmp_path / "data", members))
    (tmp_path / "map.txt").write_text("\n".join(ANIMALS))
    source, pairs, _ = read(*flags, "--target-key", "txt", "--class-map", tmp_path / "map.txt")
    assert source.names == ANIMALS and pairs == RIGHT


@pytest.mark.parametrize("flags", [[], ["--target-key", "json"], ["--target-key", "json/label"]])
def test_a_field_of_json_is_the_class_as_timm_names_it(flags, tmp_path):
    folder = write_tar(tmp_path / "data", [{"label": n % 3, "width": 8} for n in range(6)])
    source, pairs, _ = read(*flags_for("hfids", folder), *flags)
    assert pairs == RIGHT and source.columns == ("png", "json/label")


def test_several_fields_are_named_and_one_can_be_chosen(tmp_path):
    folder = write_tar(tmp_path / "data", [{"kind": n % 3, "name": ANIMALS[n % 3]} for n in range(6)])
    with pytest.raises(UserError, match="column json holds fields, not one class: name one of json/kind, json/name"):
        read(*flags_for("hfids", folder), "--target-key", "json")
    assert read(*flags_for("hfids", folder), "--target-key", "json/kind")[1] == RIGHT
    with pytest.raises(UserError, match=r"no column json/kin; did you mean json/kind\?"):
        read(*flags_for("hfids", folder), "--target-key", "json/kin")


def write_typed(folder, **columns):
    """A parquet file with these (type, values) columns."""
    folder.mkdir()
    datasets.disable_progress_bars()
    kinds = datasets.Features({name: kind for name, (kind, _) in columns.items()})
    values = {name: values for name, (_, values) in columns.items()}
    datasets.Dataset.from_dict(values, features=kinds).to_parquet(folder / "train.parquet")
    return folder


IMAGES = (datasets.Image(), [{"bytes": coloured(n), "path": None} for n in range(6)])
OTHER_IMAGES = (datasets.Image(), [{"bytes": coloured(n + 1), "path": None} for n in range(6)])
CLASSES = (datasets.ClassLabel(names=ANIMALS), [0, 1, 2] * 2)
CAMERAS = (datasets.ClassLabel(names=["front", "back"]), [0, 1] * 3)


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_usual_names_go_before_types(origin, tmp_path, caplog):
    """It trained on the cameras and the masks."""
    numbers = (datasets.Value("int64"), CLASSES[1])
    folder = write_typed(tmp_path / "data", camera=CAMERAS, mask=OTHER_IMAGES, Image=IMAGES, Label=numbers)
    source, pairs, _ = read(*flags_for(origin, folder))
    assert pairs == RIGHT and source.columns == ("Image", "Label")
    assert "image column is Image; there is also mask (--input-key)" in caplog.text
    assert "class column is Label; there is also camera (--target-key)" in caplog.text
    caplog.clear()
    read(*flags_for(origin, folder), "--input-key", "Image", "--target-key", "Label")
    assert not caplog.text


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_several_columns_of_one_type_and_no_usual_name_are_a_question(origin, tmp_path):
    folder = write_typed(tmp_path / "data", camera=CAMERAS, mask=OTHER_IMAGES, photo=IMAGES, species=CLASSES)
    with pytest.raises(UserError, match="image columns are mask, photo: choose one by --input-key"):
        read(*flags_for(origin, folder))
    with pytest.raises(UserError, match="class columns are camera, species: choose one by --target-key"):
        read(*flags_for(origin, folder), "--input-key", "photo")
    assert read(*flags_for(origin, folder), "--input-key", "photo", "--target-key", "species")[1] == RIGHT


def test_the_only_column_of_its_type_is_taken(tmp_path):
    folder = write_typed(tmp_path / "data", photo=IMAGES, species=CLASSES, width=(datasets.Value("int64"), [8] * 6))
    source, pairs, _ = read(*flags_for("hfids", folder))
    assert pairs == RIGHT and source.columns == ("photo", "species") and source.names == ANIMALS


def test_pixels_in_lists_are_no_encoded_images(tmp_path):
    pixels = (datasets.List(datasets.Value("uint8")), [[0] * 64] * 6)
    with pytest.raises(
        UserError, match="column image holds lists and no encoded images: choose another by --input-key"
    ):
        read(*flags_for("hfids", write_typed(tmp_path / "data", image=pixels, label=CLASSES)))


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_bare_bytes_are_images(kind, tmp_path):
    values = pa.array([coloured(n) for n in range(6)], getattr(pa, kind)())
    folder = write_table(tmp_path / "data", [0, 1, 2] * 2)
    table = pa.table({"image": values, "label": [0, 1, 2] * 2})
    pa.parquet.write_table(table, folder / "train.parquet")
    for origin in ("hfids", "hfds"):
        assert read(*flags_for(origin, folder))[1] == RIGHT
