"""Image folders: every image that Pillow reads is read, by either reader, and what is left out is counted and named."""

import io
import tarfile
from collections import Counter

import pytest

from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.data.sources.endings import datasets_misses, is_other_image
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded, picture
from tests.data.loaders import CONFIG, CPU, opened

KINDS = {"webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "gif": "GIF", "avif": "AVIF", "JPEG": "JPEG", "jfif": "JPEG"}


def flags(reader, root):
    return ["--data-dir", str(root)] if reader == "timm" else ["--dataset", f"hfids/{root}"]


def read(reader, root):
    """Class names, and how many images of each could be read."""
    recipe = load_recipe([*flags(reader, root), "-j", "0", "-b", "8"])
    source = opened(recipe, "train", False)
    loader = build_eval_loader(recipe, source, CONFIG, 0, Rank(CPU))
    counts = Counter(source.names[target] for batch in loader for target in batch.target.tolist())
    assert loader.skips.count == 0 and source.num_samples == counts.total()
    return source.names, dict(counts)


def write(folder, label, ending, count):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.{ending}").write_bytes(encoded(picture(label, number), KINDS.get(ending, "PNG")))


@pytest.mark.parametrize("reader", ["timm", "hfids"])
@pytest.mark.parametrize("ending", KINDS)
def test_an_ending_beside_png_is_read_also_where_a_whole_class_has_it(ending, reader, tmp_path, caplog):
    write(tmp_path / "train" / "ant", 0, "png", 4)
    write(tmp_path / "train" / "bee", 1, "png", 1)
    write(tmp_path / "train" / "bee", 1, ending, 2)
    write(tmp_path / "train" / "cat", 2, ending, 3)
    assert read(reader, tmp_path) == (["ant", "bee", "cat"], {"ant": 4, "bee": 3, "cat": 3})
    assert not caplog.text


@pytest.mark.parametrize("reader", ["timm", "hfids"])
@pytest.mark.parametrize("link", ["split", "class", "images"])
def test_links_are_followed(link, reader, tmp_path):
    write(tmp_path / "elsewhere" / "ant", 0, "png", 2)
    root = tmp_path / "data"
    if link == "split":
        write(tmp_path / "elsewhere" / "bee", 1, "png", 3)
        root.mkdir()
        (root / "train").symlink_to(tmp_path / "elsewhere")
    else:
        write(root / "train" / "bee", 1, "png", 3)
        if link == "class":
            (root / "train" / "ant").symlink_to(tmp_path / "elsewhere" / "ant")
        else:
            (root / "train" / "ant").mkdir()
            for path in (tmp_path / "elsewhere" / "ant").iterdir():
                (root / "train" / "ant" / path.name).symlink_to(path)
    assert read(reader, root) == (["ant", "bee"], {"ant": 2, "bee": 3})


@pytest.mark.parametrize("reader", ["timm", "hfids"])
def test_what_is_left_out_is_counted_by_ending_and_class(reader, tmp_path, caplog):
    train = tmp_path / "train"
    for name, label in (("ant", 0), ("bee", 1)):
        write(train / name, label, "png", 2)
    for path in ("cat/1.heic", "cat/2.HEIC", "ant/3.heic", "ant/notes.txt", "bee/LICENSE", "ant/.DS_Store"):
        (train / path).parent.mkdir(exist_ok=True)
        (train / path).write_bytes(b"x")
    (train / "dog").mkdir()
    assert read(reader, tmp_path)[1] == {"ant": 2, "bee": 2}
    left_out, empty = caplog.messages
    assert left_out.endswith("not read as images: 1 without ending in bee; 3 .heic in ant, cat; 1 .txt in ant")
    assert str(train) in left_out and empty.endswith("which are no classes: cat, dog")


def test_a_table_of_labels_beside_images_is_not_passed_over(tmp_path):
    """Links would else have the folder read without it."""
    write(tmp_path / "elsewhere", 0, "png", 2)
    write(tmp_path / "data" / "train" / "bee", 1, "png", 3)
    (tmp_path / "data" / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    assert datasets_misses(tmp_path / "data" / "train")
    (tmp_path / "data" / "train" / "metadata.csv").write_text("file_name,label")
    assert not datasets_misses(tmp_path / "data" / "train")


@pytest.mark.parametrize(
    ("name", "is_other"),
    [("a/0001.png", False), ("v1.5/0001.png", False), ("v1.0001.png", True), ("0001.seg.png", True), ("0001.JPG", True),
     ("0001.cls", False), ("._0001.png", False)],
)  # fmt: skip
def test_a_name_in_a_tar_has_its_field_after_its_first_dot(name, is_other):
    assert is_other_image(name, "png") == is_other


@pytest.mark.parametrize("origin", ["hfids", "hfds"])
def test_images_in_tars_that_are_not_read_are_counted_and_named(origin, tmp_path, caplog):
    """datasets finds its columns in the first five samples, and takes all of ``v1.20.png`` to ``v1.23.png`` for one."""
    with tarfile.open(tmp_path / "train-0000.tar", "w") as tar:
        for number in range(24):
            name = f"{number:02d}" if number < 16 else f"{number:02d}x" if number < 20 else f"v1.{number}"
            ending = "webp" if name.endswith("x") else "png"
            content = {ending: encoded(picture(number % 3, number), ending.upper()), "cls": str(number % 3).encode()}
            for field, data in content.items():
                member = tarfile.TarInfo(f"{name}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    cache = ["--data-dir", str(tmp_path / "cache")] if origin == "hfds" else []
    opened(load_recipe(["--dataset", f"{origin}/{tmp_path}", *cache]))
    assert "the tars have 8 images that are not read" in caplog.text
    assert ".png from their first dot on: 16x.webp, 17x.webp, 18x.webp, 19x.webp, v1.20.png, v1.21.png" in caplog.text


def test_what_a_folder_without_split_folders_loses_through_hfids_is_named(tmp_path, caplog):
    """There datasets alone decides what belongs to the only split: links to class folders and .avif are not in it."""
    for name in ("data/a", "data/b", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(3):
            picture(0, number).save(tmp_path / name / f"{number}.png")
    (tmp_path / "data" / "a" / "x.avif").write_bytes(encoded(picture(0, 0), "AVIF"))
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    source = opened(load_recipe(flags("hfids", tmp_path / "data")))
    assert (source.num_samples, source.names) == (6, ["a", "b"])
    assert "files that are not read as images: 1 .avif in a; 3 .png in c" in caplog.text
    assert "folders without an image, which are no classes: c" in caplog.text
