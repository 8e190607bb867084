"""Images without labels in a folder: all that lie in it and below, whatever their folders are called."""

from pathlib import Path

from dccd_timm.data.sources.endings import ENDINGS, walk, warn_of_left_out
from dccd_timm.data.sources.folders import find_split
from dccd_timm.data.sources.hfids_folder import HfidsFolder
from dccd_timm.errors import UserError
from dccd_timm.recipe import Images
from dccd_timm.recipe.data import reader_of
from dccd_timm.recipe.folders import check_data_folder


def open_loose(images: Images, split: str, data_dir: str | None = None) -> HfidsFolder:
    """The images of a split below --data-dir, or below ``data_dir``, in the order of their paths.

    Raises:
        UserError: for a reader that has labels, a missing folder, or one without images.
    """
    if data_dir is None and reader_of(images.dataset) != "folder":
        raise UserError(
            f"--dataset {images.dataset} is not read without labels: give a folder of images (--data-dir), hfids/ or"
            " hfds/, or train with its classes"
        )
    if data_dir is None:
        check_data_folder(images)
    root = find_split(Path(data_dir or images.data_dir or ""), split)
    if root.is_file():
        raise UserError(f"{root} is one file: give --dataset hfids/{root.parent}, which reads tars without labels")
    found = [Path(folder, name) for folder, _, files in walk(str(root)) for name in files]
    listed = [str(path) for path in sorted(found) if path.suffix.lower() in ENDINGS]
    if not listed:
        tables = next(root.rglob("*.parquet"), None) or next(root.rglob("*.tar"), None)
        way = f": give --dataset hfids/{root} for its parquet files or tars" if tables else ""
        raise UserError(f"no images in {root} for split {split}{way}")
    warn_of_left_out(str(root), listed)
    source = HfidsFolder([(path, 0) for path in listed], None)
    source.folder = str(root)
    return source
