"""Random access: a neighbour stands in for an unreadable image in training, and nothing does in evaluation."""

import pytest

from dccd_timm.data.decode import Reader, Record, decode
from dccd_timm.data.sources.indexed import IndexedSource, IndexedViews
from tests.conftest import picture


class Broken(IndexedSource):
    """Pictures of which some cannot be opened and some cannot be decoded."""

    names, num_samples = None, 5

    def record(self, index):
        if index == 1:
            raise SyntaxError("not a PNG file")
        return Record(b"" if index in (2, 4) else picture(0, index), index, self.name(index))

    def name(self, index):
        return f"{index}.png"


@pytest.mark.parametrize(("index", "target", "skipped"), [(0, 0, []), (1, 3, ["1", "2"]), (4, 0, ["4"])])
def test_the_next_readable_image_is_taken_instead(index, target, skipped):
    reader = Reader(decode, lambda image: (image,), "RGB", seed=None)
    sample = IndexedViews(Broken(), reader, retries=20)[0, index]
    assert sample.target == target and [name.split(".")[0] for name, _ in sample.skipped] == skipped
    sample = IndexedViews(Broken(), reader, retries=1)[0, index]
    assert (sample.views is None) == bool(skipped) and len(sample.skipped) == len(skipped[:1])
