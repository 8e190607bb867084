"""All data sets but ``hfids/``: opened by timm, whose readers have random access or are streams."""

from pathlib import Path

import timm.data

from dccd_timm.data.decode import image_mode
from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.timm_map import TimmMapSource
from dccd_timm.data.sources.timm_stream import TimmStreamSource
from dccd_timm.errors import UserError, one_line
from dccd_timm.recipe import Images


def open_timm(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split through ``timm.data.create_dataset``.

    Raises:
        UserError: missing or empty folder, unknown split, unreadable data set; one line with the fix.
    """
    if not images.dataset or images.dataset.split("/")[0] in ("folder", "tar"):
        if not images.data_dir:
            raise UserError("no data: set --data-dir FOLDER, or --dataset hfids/FOLDER")
        if not Path(images.data_dir).exists():
            raise UserError(f"data folder {images.data_dir} does not exist")
    try:
        dataset = timm.data.create_dataset(
            images.dataset,
            root=images.data_dir,
            split=split,
            is_training=is_training,
            class_map=images.class_map,  # type: ignore[arg-type]  # timm takes a file's name too
            download=images.dataset_download,
            batch_size=images.batch_size,
            seed=images.seed,
            repeats=0,
            input_img_mode=image_mode(images),
            input_key=images.input_key,
            target_key=images.target_key,
            num_samples=num_samples,
        )
    except (AssertionError, RuntimeError, OSError, ValueError, TypeError, ImportError) as error:
        raise UserError(f"data set {images.dataset or images.data_dir}, split {split}: {one_line(error)}") from error
    class_to_idx = getattr(getattr(dataset, "reader", dataset), "class_to_idx", None) or {}
    names = [str(name) for name, _ in sorted(class_to_idx.items(), key=lambda item: item[1])] or None
    if len(dataset) == 0:
        raise UserError(f"no images in {images.data_dir} for split {split}")
    if isinstance(dataset, timm.data.IterableImageDataset):
        return TimmStreamSource(dataset, names, len(dataset))
    return TimmMapSource(dataset, names or getattr(dataset, "classes", None))
