"""Emoji drawn by Google and by Twitter, from two packages of npm -> parquet files with datasets' Image feature.

    npm install --prefix data/npm emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    python recipes/emoji/make_data.py --packages data/npm/node_modules --out data/emoji

A class is a subcategory of Unicode, as "animal-bird" or "face-smiling". Of two out of three emoji one artist's drawing
is for testing only, of half of them Google's and of half Twitter's: no drawing is in both splits, but the other
artist's is in training. Training has the skin tones light, medium and dark, testing medium-light and medium-dark.
"""

import argparse
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

ARTISTS = ("google", "twitter")
TONES = {"train": {"1F3FB", "1F3FD", "1F3FF"}, "test": {"1F3FC", "1F3FE"}}
CARD = """---
license: cc-by-4.0
task_categories: [image-classification]
pretty_name: {title}
---
# {title}

64 x 64 drawings of emoji on white in {classes} classes, {train} for training and {test} for testing, made by
`recipes/emoji/make_data.py` (seed {seed}) from the npm packages emoji-datasource-google and emoji-datasource-twitter
(names and subcategories: MIT, copyright Cal Henderson).

Google's drawings (Noto Emoji) have the Apache License 2.0, Twitter's (Twemoji, copyright Twitter, Inc. and other
contributors) the Creative Commons Attribution 4.0 licence. Both were put on a white background and are otherwise as
they were.
"""


@dataclass(frozen=True)
class Drawing:
    """An image of a class in one of the splits."""

    path: Path
    label: str
    split: str


def read_drawings(packages: Path, smallest: int, seed: int) -> list[Drawing]:
    """The drawings of all subcategories with ``smallest`` emoji or more, in a seeded order."""
    emoji = json.loads((packages / "emoji-datasource-google" / "emoji.json").read_text(encoding="utf-8"))
    sizes = Counter(one["subcategory"] for one in emoji)
    draw = np.random.default_rng(seed)
    drawings = []
    for one in sorted(emoji, key=lambda one: (one["subcategory"], one["sort_order"])):
        tested = (*ARTISTS, None)[draw.integers(3)]  # drawn for small classes too: a limit changes no other class
        if sizes[one["subcategory"]] >= smallest:
            for artist in ARTISTS:
                split = "test" if artist == tested else "train"
                drawings += [Drawing(path, one["subcategory"], split) for path in _files(packages, artist, one, split)]
    return [drawings[index] for index in draw.permutation(len(drawings))]


def _files(packages: Path, artist: str, one: dict, split: str) -> Iterator[Path]:
    """One artist's drawings of an emoji: without a skin tone, and with those of a split."""
    variations = one.get("skin_variations", {})
    wanted = [one, *(found for tones, found in variations.items() if set(tones.split("-")) <= TONES[split])]
    for drawn in wanted:
        if drawn[f"has_img_{artist}"]:
            yield packages / f"emoji-datasource-{artist}" / "img" / artist / "64" / drawn["image"]


def on_white(path: Path) -> bytes:
    """A drawing on a white background, as PNG."""
    drawing = Image.open(path).convert("RGBA")
    page = Image.new("RGBA", drawing.size, "white")
    page.alpha_composite(drawing)
    buffer = io.BytesIO()
    page.convert("RGB").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Write shards and dataset card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, default=Path("node_modules"), help="folder of the two packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--smallest", type=int, default=6, help="emoji that a class has at least (6)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for artist in ARTISTS:
        if not (args.packages / f"emoji-datasource-{artist}").is_dir():
            parser.error(f"{args.packages} has no emoji-datasource-{artist}: npm install it, or give --packages")

    datasets.disable_progress_bars()
    drawings = read_drawings(args.packages, args.smallest, args.seed)
    names = sorted({drawing.label for drawing in drawings})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    counts = {}
    for split in TONES:
        chosen = [drawing for drawing in drawings if drawing.split == split]
        rows = {"image": [{"bytes": on_white(d.path)} for d in chosen], "label": [d.label for d in chosen]}
        path = args.out / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        counts[split] = len(chosen)
        known = len({drawing.label for drawing in chosen})
        print(f"{path}: {len(chosen)} images of {known} classes, {path.stat().st_size / 1e6:.2f} MB")
    card = CARD.format(title="Emoji by subcategory", classes=len(names), seed=args.seed, **counts)
    (args.out / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
