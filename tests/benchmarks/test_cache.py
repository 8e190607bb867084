"""benchmarks/cache.py with tiny networks: every variant takes its steps, and what is read is counted."""

import re

from benchmarks import cache


def test_it_measures_every_variant(capsys, fresh_accelerator):
    words = "--teacher test_vit --student test_resnet --size 160 --classes 10 --images 4 --batch 2 --rounds 1 --rows 40"
    cache.main(words.split())
    text = capsys.readouterr().out
    for name in (cache.READING, cache.FILLING, cache.NONE, cache.TIMM):
        assert re.search(rf"  {name} +\d+\.\d views/s   reading / it +\d+\.\d+", text), text
    assert re.search(r"  logits +\d+ views/s   \d+ bytes an image", text)
    assert re.search(r"  logits and map 384x7x7 +\d+ views/s   \d+ bytes an image", text)
