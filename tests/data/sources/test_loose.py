"""Images without labels: every kind of source gives each of them once, and what has no images says so."""

import io
import tarfile

import pytest
from PIL import Image

from dccd_timm.data.sources import open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded


def recipe(*flags):
    unlabelled = [
        "--num-classes",
        "0",
        "--task-loss-weight",
        "0",
        "--kd-model-name",
        "resnet18",
        "--kd-distill-type",
        "dccd",
    ]
    return load_recipe([*unlabelled, "--input-img-mode", "RGB", "-j", "0", *map(str, flags)])


def save(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (4, 4), (10 * int(name.split(".")[0]), 0, 0)).save(folder / name)
    return folder


def test_a_folder_of_images_and_folders_of_any_name(tmp_path, caplog):
    save(tmp_path, "2.png", "1.jpg")
    save(tmp_path / "some" / "deep", "3.webp")
    save(tmp_path / ".hidden", "4.png")
    (tmp_path / "notes.txt").write_text("no image")
    source = open_split(recipe("--data-dir", tmp_path), "train", True, None)
    assert [source.name(k) for k in range(3)] == ["1.jpg", "2.png", "some/deep/3.webp"]
    assert source.num_samples == 3 and source.names is None and {source.record(k).target for k in range(3)} == {0}
    assert "files that are not read as images: 1 .txt" in caplog.text


def test_class_folders_have_no_classes_and_splits_are_found(tmp_path):
    save(tmp_path / "train" / "ant", "1.png")
    save(tmp_path / "validation" / "bee", "2.png")
    source = open_split(recipe("--data-dir", tmp_path), "validation", False, None)
    assert source.num_samples == 1 and source.names is None


def test_tables_tars_and_listed_folders(tmp_path):
    import datasets

    rows = {"image": [{"bytes": encoded(Image.new("RGB", (4, 4))), "path": None}] * 3}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(image=datasets.Image()))
    (tmp_path / "table" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "table" / "data" / "train-0.parquet")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "train-0.tar", "w") as tar:
        for number in range(2):
            member = tarfile.TarInfo(f"{number:03d}.png")
            data = encoded(Image.new("RGB", (4, 4)))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    save(tmp_path / "images", "1.png", "2.png", "3.png", "4.png")
    for dataset, count in (("hfids/{}/table", 3), ("hfds/{}/table", 3), ("hfids/{}/tars", 2), ("hfids/{}/images", 4)):
        flags = ["--data-dir", tmp_path / "cache"] if dataset.startswith("hfds") else []
        source = open_split(recipe("--dataset", dataset.format(tmp_path), *flags), "train", True, None)
        assert (source.num_samples, source.names, source.columns) == (count, None, None), dataset


def test_a_labelled_table_is_read_without_its_labels(tmp_path):
    import datasets

    image = {"bytes": encoded(Image.new("RGB", (4, 4))), "path": None}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict({"image": [image] * 2, "label": [0, 1]}, features=features).to_parquet(
        tmp_path / "data" / "train-0.parquet"
    )
    source = open_split(recipe("--dataset", f"hfids/{tmp_path}"), "train", True, None)
    assert source.names is None and source.num_samples == 2
    assert [record.target for record in source.rows(0, 0)] == [0, 0]


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ("torch/cifar10", "is not read without labels: give a folder of images"),
        ("wds/x", "is not read without labels"),
        ("", "no images in"),
    ],
)
def test_what_has_no_images_without_labels(dataset, line, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=line) as caught:
        open_split(recipe("--dataset", dataset, "--data-dir", tmp_path), "train", True, None)
    assert dataset or "give --dataset hfids/" in str(caught.value)


def test_a_missing_label_column_names_the_way_without_labels(tmp_path):
    import datasets

    image = {"bytes": encoded(Image.new("RGB", (4, 4))), "path": None}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict({"image": [image]}, features=datasets.Features(image=datasets.Image())).to_parquet(
        tmp_path / "data" / "train-0.parquet"
    )
    with pytest.raises(
        UserError, match=r"no class column found among image: .* \(--num-classes 0 --task-loss-weight 0\)"
    ):
        open_split(load_recipe(["--dataset", f"hfids/{tmp_path}"]), "train", True, None)
