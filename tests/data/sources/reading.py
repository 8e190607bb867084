"""What a source gives when it is read."""

from collections import Counter

from dccd_timm.data.build import Rank, build_eval_loader
from dccd_timm.recipe import load_recipe
from tests.data.loaders import CPU, opened

CONFIG = dict(input_size=(3, 40, 40), mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bilinear", crop_pct=1.0)


def seen(*words, split="train"):
    """Names and class-wise pixel sums of all images of a split."""
    recipe = load_recipe([*map(str, words), "-j", "1", "-b", "8"])
    source = opened(recipe, split, False)
    loader = build_eval_loader(recipe, source, CONFIG, 3, Rank(CPU))
    pairs = [
        (t, round(v.sum().item(), 2)) for b in loader for v, t in zip(b.views[:, 0], b.target.tolist(), strict=True)
    ]
    return source.names, Counter(pairs)
