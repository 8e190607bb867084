"""Fashion-MNIST from Debian's package dataset-fashion-mnist -> parquet files with datasets' Image feature.

    apt-get install dataset-fashion-mnist
    python recipes/quickstart/make_data.py --out recipes/quickstart/fashion-mnist   # the subset here
    python recipes/quickstart/make_data.py --out data/fashion-mnist --all   # all 60,000 training images

The subset takes the first images of each class in a seeded permutation, as many of each class; rows are shuffled.
"""

import argparse
import gzip
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

SOURCE = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
CARD = """---
license: mit
task_categories: [image-classification]
pretty_name: {title}
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
{names}
  splits:
  - name: train
    num_bytes: {train_bytes}
    num_examples: {train}
  - name: test
    num_bytes: {test_bytes}
    num_examples: {test}
---
# {title}

28 x 28 grey images of 10 kinds of clothes, {train} for training and {test} for testing, made by
`recipes/quickstart/make_data.py` (seed {seed}) from Debian's package `dataset-fashion-mnist`.
Fashion-MNIST is by Zalando SE (https://github.com/zalandoresearch/fashion-mnist), MIT licence, see LICENSE.
"""


def read_idx(path: Path) -> np.ndarray:
    """An IDX file as array: uint8 [N, H, W] for images, [N] for labels."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def png(pixels: np.ndarray) -> bytes:
    """Pixels [H, W] as an optimised PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def choose(labels: np.ndarray, per_class: int | None, seed: int) -> np.ndarray:
    """Indices of a shuffled subset with ``per_class`` images of each class, or of all images."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if per_class is None:
        return order
    kept = np.concatenate([order[labels[order] == label][:per_class] for label in range(len(CLASSES))])
    return np.random.default_rng(seed + 1).permutation(kept)


def main() -> None:
    """Write shards, dataset card and licence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder of the four idx.gz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--all", action="store_true", help="all images instead of the subset")
    parser.add_argument("--train-per-class", type=int, default=500, help="training images of each class (500)")
    parser.add_argument("--shards", type=int, default=4, help="parquet files of the training split (4)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not args.source.is_dir():
        parser.error(f"{args.source} does not exist: apt-get install dataset-fashion-mnist, or give --source")

    datasets.disable_progress_bars()
    counts: dict[str, int] = {}
    for split, stem, per_class, shards in (
        ("train", "train", None if args.all else args.train_per_class, args.shards),
        ("test", "t10k", None, 1),
    ):
        images, labels = (read_idx(args.source / f"{stem}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        chosen = choose(labels, per_class, args.seed)
        counts |= {split: len(chosen), f"{split}_bytes": 0}
        for shard, part in enumerate(np.array_split(chosen, shards)):
            rows = {"image": [{"bytes": png(images[i])} for i in part], "label": [int(labels[i]) for i in part]}
            path = args.out / "data" / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(rows, features=FEATURES).to_parquet(path)
            counts[f"{split}_bytes"] += path.stat().st_size
            print(f"{path}: {len(part)} images, {path.stat().st_size / 1e6:.2f} MB")
    names = "\n".join(f"          '{i}': {name}" for i, name in enumerate(CLASSES))
    title = "Fashion-MNIST" + ("" if args.all else ", a class-balanced subset")
    card = CARD.format(title=title, names=names, seed=args.seed, **counts)
    (args.out / "README.md").write_text(card, encoding="utf-8")
    (args.out / "LICENSE").write_text(LICENSE, encoding="utf-8")


LICENSE = """The MIT License (MIT)

Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

if __name__ == "__main__":
    main()
