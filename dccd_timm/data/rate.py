"""How many images a second one core reads, decodes and augments."""

import time
from dataclasses import replace

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.sources import Source
from dccd_timm.errors import UserError
from dccd_timm.recipe import Recipe
from dccd_timm.recipe.data_config import DataConfig

_BATCH = 16


def images_per_second(
    recipe: Recipe, source: Source, data_config: DataConfig, num_classes: int, rank: Rank, seconds: float = 2.0
) -> float:
    """Images, with all their views, that one loader worker gives in a second, measured for at least ``seconds``.

    Raises:
        UserError: when none of the first images can be read.
    """
    few = replace(
        recipe, workers=1, batch_size=min(_BATCH, source.num_samples), grad_accum_steps=1,
        train_batches_per_epoch=None, mixup=0.0, cutmix=0.0, cutmix_minmax=None,
    )  # fmt: skip
    loader = build_train_loader(few, source, data_config, num_classes, rank)
    loader.peek()
    images, began = 0, time.perf_counter()
    batches = iter(loader)
    next(batches)  # it was there already
    try:
        for batch in batches:
            images += len(batch.views)
            if (taken := time.perf_counter() - began) > seconds:
                return images / taken
    finally:
        loader.close()
    raise UserError("the training split ended")
