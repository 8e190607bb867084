"""Every kind of source gives the same images, classes and names, however they are stored."""

import io
import shutil
import tarfile
from collections import Counter

import datasets
import pytest
import torch

from dccd_timm.data.build import build_eval_loader, build_train_loader, open_split
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import CLASSES, encoded, picture

CONFIG = dict(input_size=(3, 40, 40), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)
CPU = torch.device("cpu")


def seen(*words, split="train"):
    """Names and class-wise pixel sums of all images of a split."""
    recipe = load_recipe([*map(str, words), "-j", "1", "-b", "8"])
    source = open_split(recipe, split, False)
    loader = build_eval_loader(recipe, source, CONFIG, 3, CPU)
    pairs = [
        (t, round(v.sum().item(), 2)) for b in loader for v, t in zip(b.views[:, 0], b.target.tolist(), strict=True)
    ]
    return source.names, Counter(pairs)


def test_parquet_and_image_folders_by_every_reader_are_the_same(parquet, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    expected = seen("--data-dir", folders)
    assert expected[0] == CLASSES and sum(expected[1].values()) == 48
    assert seen("--dataset", f"hfids/{parquet}") == expected
    assert seen("--dataset", f"hfids/{folders}") == expected
    assert seen("--dataset", f"hfds/{parquet}")[1] == expected[1]


def test_an_image_folder_through_datasets_is_shuffled_whole(folders):
    """As a stream it would be one shard, sorted by class."""
    recipe = load_recipe(["--dataset", f"hfids/{folders}", "-j", "2", "-b", "8"])
    loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
    batches = [batch.target.tolist() for batch, _ in zip(loader, range(6), strict=False)]
    assert Counter(t for b in batches for t in b) == {0: 16, 1: 16, 2: 16}
    assert all(len(set(b)) > 1 for b in batches)


def write_tars(folder, cut=None):
    """Two tars of 24 images each; ``cut`` keeps so many bytes of the second."""
    folder.mkdir()
    for shard in range(2):
        path = folder / f"shapes-train-{shard:04d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(24 * shard, 24 * shard + 24):
                for ending, data in (("png", encoded(picture(number % 3, number))), ("cls", str(number % 3).encode())):
                    member = tarfile.TarInfo(f"{number:04d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        if cut and shard == 1:
            path.write_bytes(path.read_bytes()[:cut])
    return folder


def test_tars_are_counted_and_read(folders, tmp_path):
    tars = write_tars(tmp_path / "tars")
    recipe = load_recipe(["--dataset", f"hfids/{tars}"])
    assert open_split(recipe, "train", True).num_samples == 48
    assert seen("--dataset", f"hfids/{tars}")[1] == seen("--data-dir", folders)[1]


@pytest.mark.parametrize("cut", [20_000, 20_480 + 700])
def test_a_tar_cut_short_gives_what_it_has(cut, tmp_path):
    tars = write_tars(tmp_path / "tars", cut)

    def skipped(*flags):
        words = ["--dataset", f"hfids/{tars}", "-j", "1", "-b", "4", "--train-num-samples", "48", *flags]
        recipe = load_recipe(words)
        loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
        for batch, _ in zip(loader, range(12), strict=False):
            assert len(batch.views) == 4
        return loader.skips.count

    with pytest.raises(UserError, match=r"0001.tar|unreadable image"):
        skipped("--data-errors", "raise")
    assert 1 <= skipped() <= 24


def test_class_words_need_a_class_map(tmp_path):
    table = {"image": [{"bytes": encoded(picture(n % 3, n)), "path": None} for n in range(9)], "kind": CLASSES * 3}
    features = datasets.Features(image=datasets.Image(), kind=datasets.Value("string"))
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    words = ["--dataset", f"hfids/{tmp_path / 'data'}", "--target-key", "kind"]
    with pytest.raises(UserError, match="kind holds words, not class indices: map them with --class-map FILE"):
        seen(*words)
    (tmp_path / "classes.txt").write_text("\n".join(reversed(CLASSES)))
    names, found = seen(*words, "--class-map", tmp_path / "classes.txt")
    assert names == CLASSES[::-1] and Counter(t for t, _ in found.elements()) == {0: 3, 1: 3, 2: 3}
    with pytest.raises(UserError, match=r"--class-map .*none.txt cannot be read"):
        seen(*words, "--class-map", tmp_path / "none.txt")


def test_the_first_broken_image_of_a_folder_can_end_a_run_with_one_line(folders, tmp_path):
    """Raised in a worker, the line would come back as that worker's traceback."""
    shutil.copytree(folders, tmp_path / "images")
    next((tmp_path / "images" / "train").rglob("*.png")).write_bytes(b"broken")
    recipe = load_recipe(["--data-dir", str(tmp_path / "images"), "-j", "2", "-b", "8", "--data-errors", "raise"])
    loader = build_train_loader(recipe, open_split(recipe, "train", True), CONFIG, 3, CPU)
    with pytest.raises(UserError) as info:
        for _ in zip(loader, range(6), strict=False):
            pass
    assert "unreadable image" in str(info.value) and "\n" not in str(info.value)
