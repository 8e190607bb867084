"""Small data sets in which the colour of a picture is its class, so that labels can be checked."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.recipe import load_recipe
from tests.conftest import encoded
from tests.data.loaders import CPU, opened

ANIMALS = ["ant", "bee", "cat"]
CONFIG = dict(input_size=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", crop_pct=1.0)


def coloured(number):
    """An encoded picture of class ``number % 3``: red, green or blue."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., number % 3] = 200 + number
    return encoded(Image.fromarray(pixels))


def write_table(folder, labels, name="train", metadata=None, **columns):
    """A parquet file with pictures of classes 0, 1, 2, 0 ... in column ``image``, beside their ``labels``."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": coloured(n), "path": f"{n}.png"} for n in range(len(labels))])
    table = pa.table({"image": images, "label": labels, **columns})
    pq.write_table(table.replace_schema_metadata(metadata), folder / f"{name}.parquet")
    return folder


def write_pictures(folder, classes=ANIMALS, per=2):
    """A folder for each class with its pictures; a class's colour is its place among the animals, or that given."""
    places = classes if isinstance(classes, dict) else {name: ANIMALS.index(name) for name in classes}
    for name, place in places.items():
        for number in range(per):
            path = folder / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(coloured(place + 3 * number))
    return folder


def flags_for(origin, folder):
    """Flags that read ``folder`` through ``hfids`` or ``hfds``, whose copy lies beside it."""
    cache = ["--data-dir", str(folder.parent / "cache")] if origin == "hfds" else []
    return ["--dataset", f"{origin}/{folder}", *cache]


def read(*words, split="train"):
    """The opened split, its (class index, colour) pairs as a sorted list without repeats, and what was skipped."""
    recipe = load_recipe([*map(str, words), "-j", "1", "-b", "8"])
    source = opened(recipe, split, False)
    loader = build_eval_loader(recipe, source, CONFIG, len(source.names or []), Rank(CPU))
    pairs = [
        (target, int(view.mean((1, 2)).argmax()))
        for batch in loader
        for view, target in zip(batch.views[:, 0], batch.target.tolist(), strict=True)
    ]
    return source, sorted(set(pairs)), loader.skips.names
