"""Image folders through datasets are read with random access."""

import zipfile
from collections import Counter

import pytest

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.sources.hfids_folder import HfidsFolder
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.data.loaders import CPU, opened
from tests.data.sources.colours import ANIMALS, coloured, read, write_pictures

CONFIG = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def test_an_image_folder_through_datasets_is_shuffled_whole(folders):
    """As a stream it would be one shard, sorted by class."""
    recipe = load_recipe(["--dataset", f"hfids/{folders}", "-j", "2", "-b", "8"])
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    batches = [batch.target.tolist() for batch, _ in zip(loader, range(6), strict=False)]
    assert Counter(t for b in batches for t in b) == {0: 16, 1: 16, 2: 16}
    assert all(len(set(b)) > 1 for b in batches)


def test_images_of_the_same_name_in_nested_folders_keep_different_names():
    source = HfidsFolder([("/data/train/a/x/1.png", 0), ("/data/train/b/x/1.png", 0)], ["x"])
    assert [source.name(0), source.name(1)] == ["a/x/1.png", "b/x/1.png"]


RIGHT = [(0, 0), (1, 1), (2, 2)]


def test_a_zip_of_class_folders_has_their_classes(tmp_path):
    """datasets takes the zip's own folder for the class of all images in it."""
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for n in range(12):
            archive.writestr(f"{ANIMALS[n % 3]}/{n}.{'png' if n < 9 else 'PNG'}", coloured(n))
            archive.writestr(f"__MACOSX/{ANIMALS[n % 3]}/._{n}.png", b"resource fork")
    source, pairs, skipped = read("--dataset", f"hfids/{tmp_path}")
    assert (source.names, source.num_samples, pairs, skipped) == (ANIMALS, 12, RIGHT, [])


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_images_without_class_folders_are_refused(splits, tmp_path):
    """A test split was one class, and the training split a KeyError."""
    for split in splits:
        write_pictures(tmp_path, ["ant"]).joinpath("ant").rename(tmp_path / split)
    for split in splits:
        with pytest.raises(UserError, match=rf"{split} has 2 images and no class folders: .*move each into a folder"):
            read("--dataset", f"hfids/{tmp_path}", split=split)


def test_images_beside_the_class_folders_are_left_out(tmp_path, caplog):
    write_pictures(tmp_path / "train").joinpath("stray.png").write_bytes(coloured(0))
    source, pairs, _ = read("--dataset", f"hfids/{tmp_path}")
    assert (source.names, source.num_samples, pairs) == (ANIMALS, 6, RIGHT)
    assert "1 images that lie beside the class folders have no class and are left out" in caplog.text


def test_a_split_of_one_class_keeps_it(tmp_path):
    write_pictures(tmp_path / "train")
    write_pictures(tmp_path / "validation", ["bee"])
    assert read("--dataset", f"hfids/{tmp_path}")[0].names == ANIMALS
    assert read("--dataset", f"hfids/{tmp_path}", split="validation")[0].names == ["bee"]


def with_metadata(folder, labels):
    (folder / "train").mkdir()
    for number in range(len(labels)):
        (folder / "train" / f"{number}.png").write_bytes(coloured(number))
    rows = [f"{number}.png,{label}\n" for number, label in enumerate(labels)]
    (folder / "train" / "metadata.csv").write_text("file_name,label\n" + "".join(rows))
    return ["--dataset", f"hfids/{folder}"]


def test_metadata_may_have_numbers_and_gaps(tmp_path, caplog):
    """An empty label ended in a traceback."""
    source, pairs, skipped = read(*with_metadata(tmp_path, [0, 1, 2, ""]))
    assert "not read" not in caplog.text  # the table is
    assert source.columns == ("image", "label") and pairs == RIGHT
    assert len(skipped) == 1 and "3.png (no class)" in skipped[0]


def test_metadata_with_names_needs_a_class_map(tmp_path):
    flags = with_metadata(tmp_path, [*ANIMALS, ""])
    with pytest.raises(UserError, match="column label has names, not class indices: map them with --class-map FILE"):
        read(*flags)
    (tmp_path / "map.txt").write_text("ant\nbee\ncat")
    source, pairs, skipped = read(*flags, "--class-map", tmp_path / "map.txt")
    assert (source.names, pairs, len(skipped)) == (ANIMALS, RIGHT, 1)
