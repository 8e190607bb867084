"""Loaders on the CPU from flags, and data sets in which an image's class is its number."""

import io
import tarfile

import datasets
import numpy as np
import torch
from PIL import Image

from dccd_timm.data.build import Rank, build_train_loader
from dccd_timm.data.sources import open_split
from dccd_timm.recipe import load_recipe

CPU = torch.device("cpu")
CONFIG = dict(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)
IMAGES = 97


def opened(recipe, split="train", is_training=True):
    """A split as the programs open it."""
    return open_split(recipe, split, is_training, recipe.train_num_samples if is_training else recipe.val_num_samples)


def recipe_for(kind, parquet, folders, *flags):
    data = (
        ["--dataset", f"hfids/{parquet}", "--val-split", "test"] if kind == "stream" else ["--data-dir", str(folders)]
    )
    return load_recipe([*data, "--dccd-views", "2", "-b", "8", *map(str, flags)])


def image_bytes(number, kind="PNG"):
    pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_numbered(folder, shards, kind="parquet", images=IMAGES, row_group=None):
    """Images whose class is their number, in ``shards`` files of unequal size."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = np.linspace(0, images, shards + 1).astype(int)
    cuts[1:-1] += np.arange(shards - 1) % 2  # unequal, none empty
    for shard in range(shards):
        numbers = range(cuts[shard], cuts[shard + 1])
        name = folder / f"train-{shard:05d}-of-{shards:05d}"
        if kind == "parquet":
            table = {"image": [{"bytes": image_bytes(n), "path": f"{n}.png"} for n in numbers], "label": list(numbers)}
            features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
            file = datasets.Dataset.from_dict(table, features=features)
            file.to_parquet(f"{name}.parquet", batch_size=row_group or 1000)
        else:
            with tarfile.open(f"{name}.tar", "w") as tar:
                for n in numbers:
                    for ending, data in (("jpg", image_bytes(n, "JPEG")), ("cls", str(n).encode())):
                        member = tarfile.TarInfo(f"{n:05d}.{ending}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
    return folder


def train_loader(folder, rank=0, world=1, workers=1, batch_size=1, state=None, start_epoch=0, seed=42, flags=()):
    recipe = load_recipe(
        ["--dataset", f"hfids/{folder}", "-j", str(workers), "-b", str(batch_size), "--seed", str(seed), *flags]
    )
    source = opened(recipe)
    return build_train_loader(recipe, source, CONFIG, 0, Rank(CPU, rank, world), start_epoch, state)
