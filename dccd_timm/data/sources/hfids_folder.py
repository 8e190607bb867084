"""``hfids/`` image folders, on disk or on the Hub: as a stream they would be one shard sorted by class, so the files
are listed and read with random access."""

import fsspec

from dccd_timm.data.decode import Record
from dccd_timm.data.patience import disable_inner_retries
from dccd_timm.data.sources.base import common_folder
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.network import limit_requests


class HfidsFolder(IndexedSource):
    """Images by their paths or addresses, with class indices."""

    def __init__(self, images: list[tuple[str, int]], names: list[str] | None) -> None:
        self.images, self.names, self.num_samples = images, names, len(images)
        self.root = common_folder([path for path, _ in images])

    def record(self, index: int) -> Record:
        """The image at ``index``; a local one is opened when it is decoded."""
        path, target = self.images[index]
        if "://" not in path:
            return Record(path, target, self.name(index))
        limit_requests()  # in this worker
        disable_inner_retries()
        with fsspec.open(path, "rb") as file:
            return Record(file.read(), target, self.name(index))

    def name(self, index: int) -> str:
        """Path below the folder that all images are in."""
        return self.images[index][0].removeprefix(self.root)
