"""How many images a second one worker gives."""

import time

import pytest

from dccd_timm.data.build import Rank
from dccd_timm.data.rate import images_per_second
from dccd_timm.errors import UserError
from tests.conftest import write_parquet
from tests.data.loaders import CONFIG, CPU, opened, recipe_for


@pytest.mark.parametrize("kind", ["stream", "folder"])
def test_a_slow_decoder_is_measured(kind, parquet, folders):
    recipe = recipe_for(kind, parquet, folders, "--mixup", 0.2, "-b", 4, "--train-batches-per-epoch", 2)
    began = time.perf_counter()
    rate = images_per_second(recipe, opened(recipe), CONFIG, 3, Rank(CPU), seconds=0.2)
    taken = time.perf_counter() - began
    assert 16 / taken < rate < 100_000  # at least one batch in all that time


def test_images_that_cannot_be_read_are_named(tmp_path):
    folder = write_parquet(tmp_path, per_class=(2, 1), spoil=range(6))
    recipe = recipe_for("stream", folder, None, "--data-errors", "skip")
    with pytest.raises(UserError, match="image"):
        images_per_second(recipe, opened(recipe), CONFIG, 3, Rank(CPU), seconds=0.1)
