"""Streams from disk: how many workers can read one, how images are counted, what a broken shard costs."""

import io
import tarfile

import datasets
import pytest

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.errors import UserError
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded, picture, write_parquet
from tests.data.loaders import CPU, opened, recipe_for, train_loader
from tests.data.sources.reading import seen

CONFIG = dict(input_size=(3, 40, 40), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def test_more_workers_than_shards_become_fewer(parquet, folders, caplog):
    caplog.set_level("DEBUG", logger="dccd_timm.data")
    recipe = recipe_for("stream", parquet, folders, "-j", 5)
    loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
    assert loader.loader.num_workers == 2 and "2 loader workers instead of 5" in caplog.text


def test_few_shards_are_split_by_row_groups_or_read_by_fewer_workers(numbered, caplog):
    caplog.set_level("DEBUG", logger="dccd_timm.data")
    loader = train_loader(numbered(1, row_group=10), workers=3)
    assert loader.loader.num_workers == 3 and loader.position.layout["shards"] == 10 and not caplog.text
    assert train_loader(numbered(2), workers=3).loader.num_workers == 2
    assert "2 loader workers instead of 3: the stream has 2 shards" in caplog.text
    assert train_loader(numbered(7), workers=0).loader.num_workers == 1  # never in the main process


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
    assert opened(recipe).num_samples == 48
    assert seen("--dataset", f"hfids/{tars}")[1] == seen("--data-dir", folders)[1]


@pytest.mark.parametrize("cut", [20_000, 20_480 + 700])
def test_a_tar_cut_short_gives_what_it_has(cut, tmp_path):
    tars = write_tars(tmp_path / "tars", cut)

    def skipped(*flags):
        words = ["--dataset", f"hfids/{tars}", "-j", "1", "-b", "4", "--train-num-samples", "48", *flags]
        recipe = load_recipe(words)
        loader = build_train_loader(recipe, opened(recipe), CONFIG, 3, Rank(CPU))
        for batch, _ in zip(loader, range(12), strict=False):
            assert len(batch.views) == 4
        return loader.skips.count

    with pytest.raises(UserError, match=r"0001.tar|unreadable image"):
        skipped("--data-errors", "raise")
    assert 1 <= skipped() <= 24


def spoil(path, how):
    """Break one shard in a way that disks and uploads do."""
    table = datasets.Dataset.from_parquet(str(path))
    if how == "page":
        data = bytearray(path.read_bytes())
        middle = len(data) // 3
        data[middle : middle + 400] = bytes(400)
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "column":
        table.remove_columns("label").to_parquet(path)


@pytest.mark.parametrize("how", ["page", "cut", "column"])
def test_a_broken_local_shard_is_counted_or_stops(tmp_path, how):
    folder = write_parquet(tmp_path / "shapes", shards=4)
    spoil(folder / "data" / "train-00001-of-00004.parquet", how)
    config = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)

    def batches(*flags):
        words = ["--dataset", f"hfids/{folder}", "-b", "4", "-j", "2", "--train-num-samples", "48", *flags]
        recipe = load_recipe(words)
        loader = build_train_loader(recipe, opened(recipe), config, 3, Rank(CPU))
        for batch, _ in zip(loader, range(20), strict=False):  # more than a pass
            assert len(batch.views) == 4
        return loader.skips

    with pytest.raises(UserError, match=r"train-00001-of-00004.parquet.*--data-errors skip"):
        batches("--data-errors", "raise")
    skips = batches()
    assert 1 <= skips.count <= 12 and all("train-00001" in name for name in skips.names)
