"""Image folders through datasets are read with random access."""

from collections import Counter

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.sources.hfids_folder import HfidsFolder
from dccd_timm.recipe import load_recipe
from tests.data.loaders import CPU, opened

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
