"""timm's readers and torchvision's data sets are read by index, each image with its name."""

import timm.data
from PIL import Image
from torchvision.datasets import FakeData

from dccd_timm.data.decode import decode
from dccd_timm.data.sources.timm_map import TimmMapSource
from tests.conftest import CLASSES


def test_timms_folder_reader(folders):
    source = TimmMapSource(timm.data.ImageDataset(str(folders / "train")), CLASSES)
    assert (source.num_samples, source.names) == (48, CLASSES)
    record = source.record(20)
    path = folders / "train" / record.name
    assert CLASSES[record.target] == path.parent.name
    assert decode(record.image, "RGB").tobytes() == Image.open(path).convert("RGB").tobytes()


def test_torchvision_has_no_names():
    record = TimmMapSource(FakeData(size=3, image_size=(3, 8, 8)), None).record(2)
    assert record.name == "sample 2" and record.image.size == (8, 8) and isinstance(record.target, int)
