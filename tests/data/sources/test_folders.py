"""Class folders and splits: one numbering whichever reader opens them, nothing hidden, no other folder in silence."""

import itertools
import shutil
import tarfile

import pytest
from timm.data.readers.reader_image_folder import ReaderImageFolder

from dccd_timm.data.sources import hfds
from dccd_timm.data.sources.folders import class_order, find_split, number_classes
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import ROOT, picture
from tests.data.loaders import opened
from tests.data.sources.colours import flags_for, read, write_pictures, write_table


def write(root, *names, images=2):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(images):
            picture(number % 3, k, size=8).save(root / name / f"{k}.png")


def classes_of_files(source):
    """Class index by the folder of each image."""
    if samples := getattr(getattr(source, "dataset", None), "samples", None):  # torchvision's
        assert [target for _, target in samples] == [source.record(n).target for n in range(source.num_samples)]
        return {path.split("/")[-2]: target for path, target in samples}
    return {source.name(n).split("/")[0]: source.record(n).target for n in range(source.num_samples)}


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["class10", "class2", "class1"], ["class1", "class2", "class10"]),
        (["cat", "Cat", "CAT"], ["CAT", "Cat", "cat"]),
        (["2", "01", "1", "001", "10"], ["001", "01", "1", "2", "10"]),
        (["n02", "N2", "n2", "N02"], ["N02", "N2", "n02", "n2"]),
        (["m²", "²", "a"], ["a", "m²", "²"]),
    ],
)
def test_one_order_whatever_the_set_gives(names, ordered):
    assert all(class_order(given) == ordered for given in itertools.permutations(names))


@pytest.mark.parametrize("dataset", ["", "hfids/{}", "hfds/{}", "torch/image_folder"])
def test_every_reader_numbers_a_folder_alike(tmp_path, dataset):
    names = ["class1", "class2", "class10", "Cat", "cat"]
    write(tmp_path / "train", *names)
    write(tmp_path / "validation", *names)
    place = [] if "{}" in dataset else ["--data-dir", str(tmp_path)]
    source = opened(load_recipe(["--dataset", dataset.format(tmp_path), *place]))
    assert source.names == ["Cat", "cat", "class1", "class2", "class10"]
    assert classes_of_files(source) == {name: index for index, name in enumerate(source.names)}


@pytest.mark.parametrize("dataset", ["", "hfids/{}", "hfds/{}", "torch/image_folder"])
def test_hidden_files_and_folders_are_no_classes(tmp_path, dataset):
    write(tmp_path / "train", ".ipynb_checkpoints", "ant", "bee", "bee/.thumbnails", "bee/.cache/ant")
    picture(0, 0, size=8).save(tmp_path / "train" / "ant" / "._0.png")
    place = [] if "{}" in dataset else ["--data-dir", str(tmp_path)]
    source = opened(load_recipe(["--dataset", dataset.format(tmp_path), *place]))
    assert source.names == ["ant", "bee"] and source.num_samples == 4
    assert classes_of_files(source) == {"ant": 0, "bee": 1}


@pytest.mark.parametrize("dataset", ["", "hfids/{}", "hfds/{}"])
def test_class_folders_of_one_name_and_inside_others_are_named(tmp_path, dataset, caplog):
    """timm and datasets take the innermost folder for the class: cats and dogs were one class, photos, without a word."""
    write(tmp_path / "photos" / "train", "cat/photos", "dog/photos")
    write(tmp_path / "parts" / "train", "1/cat", "1/dog", "2/cat", "2/dog", "bee", "bee/wing")

    def names(folder):
        place = [] if dataset else ["--data-dir", str(folder)]
        return opened(load_recipe(["--dataset", dataset.format(folder), *place])).names

    with pytest.raises(UserError, match="has one class, photos: its images are in cat/photos, dog/photos"):
        names(tmp_path / "photos")
    assert names(tmp_path / "parts") == ["bee", "cat", "dog", "wing"]
    merged, inner = caplog.messages
    assert merged.endswith("folders of the same name are one class: 1/cat, 2/cat, 1/dog, 2/dog")
    assert inner.endswith("class folders inside others are classes of their own: bee/wing")


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_splits_whose_names_datasets_does_not_know_are_not_one(tmp_path, origin):
    """They were trained together."""
    write(tmp_path / "folders", "Train/ant", "Train/bee", "Test/ant", "Test/bee")
    for name in ("Train-0", "Test-0", "Train-1"):
        write_table(tmp_path / "tables", [0, 1, 2], name)
    for folder, names in (("folders", "Test and Train"), ("tables", "Test-0.parquet and Train-0.parquet")):
        with pytest.raises(UserError, match=f"has {names}, which would be read as one split"):
            opened(load_recipe(flags_for(origin, tmp_path / folder)))
    write(tmp_path / "all", "train/ant", "train/bee", "test/ant", "test/bee")
    flags = {
        "hfids": flags_for(origin, tmp_path / "zip"),
        "hfds": ["--data-dir", shutil.make_archive(str(tmp_path / "all"), "tar", tmp_path / "all")],
    }[origin]
    shutil.make_archive(str(tmp_path / "zip" / "all"), "zip", tmp_path / "all")
    with pytest.raises(UserError, match="has test and train, which would be .* one archive, unpack it"):
        opened(load_recipe(flags))
    write_table(tmp_path / "one", [0, 1, 2], "Train-0")
    assert read(*flags_for(origin, tmp_path / "one"))[0].num_samples == 3


@pytest.mark.parametrize("split", ["train[:50%]", "train"])
def test_a_folder_that_datasets_converts_is_numbered_as_all(tmp_path, split, monkeypatch):
    """A part may lack classes; of a whole split, as from the Hub, those of other splits are none."""
    monkeypatch.setattr(hfds.Path, "exists", lambda path: False)  # so is one of the Hub
    monkeypatch.setattr(hfds, "check_data_folder", lambda images: None)
    write_pictures(tmp_path / "data" / "train", {"class1": 0, "class2": 1, "class10": 2})
    write_pictures(tmp_path / "data" / "test", {"class3": 0})
    source, pairs, _ = read(*flags_for("hfds", tmp_path / "data"), split=split)
    if split == "train":
        assert source.names == ["class1", "class2", "class10"] and pairs == [(0, 0), (1, 1), (2, 2)]
    else:  # half of the files, in datasets' order
        assert source.names == ["class1", "class2", "class3", "class10"] and pairs == [(0, 0), (3, 2)]


def test_a_class_map_numbers_and_hidden_folders_stay_out(tmp_path):
    write(tmp_path / "train", "ant", "bee", ".trash/ant")
    (tmp_path / "map.txt").write_text("bee\nant\n")
    source = opened(load_recipe(["--data-dir", str(tmp_path), "--class-map", str(tmp_path / "map.txt")]))
    assert source.names == ["bee", "ant"] and source.num_samples == 4
    assert classes_of_files(source) == {"ant": 1, "bee": 0}


def test_a_tar_of_class_folders_is_numbered_as_a_folder(tmp_path):
    names = ["class1", "class2", "class10", "Cat", "cat", ".ipynb_checkpoints", "cat/.hidden"]
    write(tmp_path / "images", *names)
    picture(0, 0, size=8).save(tmp_path / "images" / "cat" / "._0.png")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "images", arcname="")
    source = opened(load_recipe(["--data-dir", str(tmp_path / "images.tar"), "--val-split="]))
    assert source.names == ["Cat", "cat", "class1", "class2", "class10"] and source.num_samples == 10
    reader = source.dataset.reader
    labels = [sample[0].name.split("/")[-2] for sample in reader.samples]
    assert [source.names[source.record(n).target] for n in range(10)] == labels


@pytest.mark.parametrize("prefix", ["", "./"])
def test_images_beside_the_class_folders_of_a_tar_are_no_class(tmp_path, prefix, caplog):
    """They were the class "", or "."."""
    write(tmp_path / "all", "ant", "bee", ".")
    for name, folders in (("flat", "."), ("mixed", "*")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for path in sorted((tmp_path / "all").glob("*.png" if folders == "." else "**/*.png")):
                tar.add(path, arcname=prefix + str(path.relative_to(tmp_path / "all")))
    with pytest.raises(UserError, match="flat.tar has 2 images and no class folders"):
        opened(load_recipe(["--data-dir", str(tmp_path / "flat.tar")]))
    source = opened(load_recipe(["--data-dir", str(tmp_path / "mixed.tar")]))
    assert source.names == ["ant", "bee"] and source.num_samples == 4
    assert "mixed.tar: 2 images that lie beside the class folders have no class and are left out" in caplog.text


def test_images_without_class_folders(tmp_path, caplog):
    write(tmp_path, "validation")
    recipe = load_recipe(["--data-dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"validation has 2 images and no class folders: .*move each into"):
        opened(recipe, "validation", False)
    write(tmp_path / "validation", "ant", "bee")
    source = opened(recipe, "validation", False)
    assert (source.names, source.num_samples) == (["ant", "bee"], 4)
    assert "2 images that lie beside the class folders have no class and are left out" in caplog.text


def test_files_that_are_equal_to_timm_do_not_stand_as_the_disk_lists_them(tmp_path):
    write(tmp_path, "a")
    reader = ReaderImageFolder(tmp_path)
    listed = [(f"{tmp_path}/a/{name}.png", 0) for name in ("1", "01", "B1", "b01", "b1", "c")]
    for given in itertools.permutations(listed[:2]):
        reader.samples = [*given, *listed[4:1:-1], listed[5]]
        number_classes(reader)
        assert [path.rsplit("/", 1)[1] for path, _ in reader.samples] == [
            "01.png", "1.png", "B1.png", "b01.png", "b1.png", "c.png"
        ]  # fmt: skip


def test_a_split_is_found_by_its_name_or_a_synonym(tmp_path):
    write(tmp_path, "train/ant", "val/ant", "fold1/ant")
    assert find_split(tmp_path, "train") == find_split(tmp_path, "training") == tmp_path / "train"
    assert find_split(tmp_path, "validation") == tmp_path / "val"
    assert find_split(tmp_path, "fold1") == tmp_path / "fold1"
    assert find_split(tmp_path, "") == tmp_path


@pytest.mark.parametrize(
    ("folders", "split", "there"),
    [
        (["train/ant", "train/bee", "test/ant", "test/bee"], "validation", "test, train"),
        (["train/ant", "test/ant"], "tset", "test, train"),
        (["training_set/ant", "test_set/ant"], "train", "test_set, training_set"),
        (["Train/ant", "Val/ant"], "train", "Train, Val"),
        (["fold1/ant", "fold1/bee", "fold2/ant"], "train", "fold1, fold2"),
        (["ant", "bee"], "holdout", "ant, bee"),
    ],
)
def test_a_missing_split_is_not_the_whole_root(tmp_path, folders, split, there):
    write(tmp_path, *folders)
    with pytest.raises(UserError, match=f"has no folder for split {split}, it has {there}: name one"):
        opened(load_recipe(["--data-dir", str(tmp_path)]), split, False)


@pytest.mark.parametrize("folders", [["ant", "bee"], ["insects/ant", "pets/cat"], ["trains/steam", "testudo/a"]])
def test_a_root_without_splits_is_one(tmp_path, folders):
    write(tmp_path, *folders)
    source = opened(load_recipe(["--data-dir", str(tmp_path)]), "validation", False)
    assert source.names == class_order(folder.split("/")[-1] for folder in folders)


def test_a_part_of_a_split_is_refused(tmp_path):
    write(tmp_path, "train/ant")
    with pytest.raises(UserError, match="image folders are read whole"):
        find_split(tmp_path, "train[:10%]")


def test_a_folder_on_the_command_line_is_read_and_not_the_recipes_stream(tmp_path):
    write(tmp_path, "train/ant", "train/bee", "val/ant", "val/bee")
    recipe = ["-c", str(ROOT / "recipes" / "quickstart.yaml"), "--data-dir"]
    assert opened(load_recipe([*recipe, str(tmp_path)])).names == ["ant", "bee"]
    for place, message in ((tmp_path / "none", "does not exist"), (tmp_path / "val" / "ant", "no class folders")):
        with pytest.raises(UserError, match=message):
            opened(load_recipe([*recipe, str(place)]))
