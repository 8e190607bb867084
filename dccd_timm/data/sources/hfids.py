"""``hfids/``: parquet, webdataset tars and image folders, on disk or on the Hub, opened through datasets' streaming."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dccd_timm.data.patience import DataPatience, disable_inner_retries, is_of_network, is_offline
from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.class_map import ClassMap, read_class_map
from dccd_timm.data.sources.columns import Labels, find_columns, find_image_column, read_labels, without_labels
from dccd_timm.data.sources.endings import datasets_misses, warn_of_left_out
from dccd_timm.data.sources.folders import check_one_split, find_split
from dccd_timm.data.sources.hfids_files import (
    Footer,
    are_remote,
    check_classes,
    count_images,
    read_footers,
    tar_hint,
    with_own_names,
)  # fmt: skip
from dccd_timm.data.sources.hfids_folder import metadata_files, open_image_folder
from dccd_timm.data.sources.hfids_stream import HfidsStream
from dccd_timm.data.sources.loose import open_loose
from dccd_timm.data.sources.timm_readers import open_timm
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import announced, limit_requests, retry
from dccd_timm.recipe import Images, Recipe
from dccd_timm.recipe.data import local_folder
from dccd_timm.recipe.folders import check_data_folder

if TYPE_CHECKING:
    from datasets import DatasetBuilder, Features, IterableDataset

# Files on a Hub whose ends are read to check what the data set's card says: two requests each.
_FEW_FILES = 16
# Seconds to wait for a Hub that does not answer when a run begins, while its user is likely to watch.
_OPENING_SECONDS = 60.0


def open_hfids(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split of ``hfids/<folder or Hub id>``.

    Raises:
        UserError: missing folder or data set, unknown configuration, split or column; one line with the fix.
    """
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder  # datasets is slow to import

    name = images.dataset.partition("/")[2]
    check_data_folder(images)
    folder = local_folder(images.dataset, images.data_dir)
    root = _split_folder(folder, split) if folder else None
    if root and datasets_misses(root) and images.is_unlabelled:
        return open_loose(images, split, str(folder))
    if root and datasets_misses(root):
        return open_timm(replace(images, dataset="", data_dir=str(folder), input_key=None), split, is_training, None)
    disable_inner_retries()
    limit_requests()
    class_map = read_class_map(images)
    timeout = 0.0 if folder else min(_OPENING_SECONDS, images.data_timeout)
    opened = _open(images, name, folder, split, timeout)
    if len(opened.builder.config.data_files or {}) == 1:
        check_one_split(opened.files, split)
    if isinstance(opened.builder, ImageFolder):
        source = open_image_folder(opened.builder, opened.dataset, images, split, class_map)
        # of several splits without folders of their own, which of them a file belongs to is in its name
        listed = root or (folder if len(opened.builder.config.data_files or {}) == 1 else None)
        if listed:
            taken = [path.rpartition("::")[2] for path, _ in source.images]  # or the zips
            warn_of_left_out(str(listed), [*taken, *metadata_files(opened.builder)])
        return source
    of_run = "--train-num-samples" if is_training else "--val-num-samples"
    flag = of_run if isinstance(images, Recipe) else "--num-samples"  # validate.py has one split
    return _open_table(opened, images, class_map, num_samples, flag)


@dataclass(frozen=True)
class _Opened:
    """One split: its builder, whose data set's card may name the columns' types, and its undecoded rows."""

    name: str
    split: str
    builder: "DatasetBuilder"
    dataset: "IterableDataset"
    typed_by_card: bool
    timeout: float

    @property
    def files(self) -> list[str]:
        """Files or addresses of the split, as far as known."""
        return [str(file) for file in (self.builder.config.data_files or {}).get(self.split, [])]

    @property
    def card_count(self) -> int | None:
        """Images of the split by the data set's card."""
        info = (self.dataset.info.splits or {}).get(self.split)
        return int(info.num_examples) if info is not None and info.num_examples else None

    def footers(self, num_samples: int | None) -> list[Footer]:
        """The ends of its parquet files; of many files on a Hub only where the number of images is not known."""
        if are_remote(self.files) and (num_samples or self.card_count) and len(self.files) > _FEW_FILES:
            return []
        try:
            return read_footers(self.files, self.timeout)
        except UserError:
            if num_samples:  # else the reader counts what is broken
                return []
            raise

    def rows(self, features: "Features", columns: list[str]) -> "IterableDataset":
        """Undecoded rows with these columns only, so that others may differ from file to file."""
        from datasets.packaged_modules.parquet.parquet import Parquet

        if not isinstance(self.builder, Parquet):
            return self.dataset.select_columns(columns)
        self.builder.config.columns = columns
        self.builder.info.features = type(features)({column: features[column] for column in columns})
        return self.builder.as_streaming_dataset(split=self.split).decode(False)


def _open_table(
    opened: _Opened, images: Images, class_map: ClassMap | None, num_samples: int | None, flag: str
) -> HfidsStream:
    """The rows of one split with their two columns; ``flag`` gives the number of images where the files do not say."""
    features = opened.dataset.features
    target_key = ""
    if images.is_unlabelled:
        image_key = find_image_column(features, images)
    else:
        image_key, target_key = find_columns(features, images)
    footers = opened.footers(num_samples)
    where = f"{opened.name}, split {opened.split}"
    labels: Labels = without_labels(image_key)
    if not images.is_unlabelled:
        features = with_own_names(features, target_key, footers, opened.typed_by_card, where)
        labels = read_labels(target_key, features, class_map)
        if not are_remote(opened.files) and footers:
            check_classes(opened.files, labels)
    num_samples = num_samples or count_images(opened.card_count, opened.files, image_key, footers)
    if num_samples is None:
        raise UserError(
            f"{opened.name} does not say how many images split {opened.split} has: give {flag}, or"
            " read hfds/ in place of hfids/"
        )
    if num_samples == 0:
        raise UserError(f"no images in {where}")
    rows = opened.rows(features, list(dict.fromkeys([image_key, labels.column])))
    return HfidsStream(rows, num_samples, image_key, labels, opened.files, are_remote(opened.files))


def _split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split in a local data set, where it has one."""
    with contextlib.suppress(UserError):
        if (root := find_split(folder, split)) != folder:
            return root
    return None


def _open(images: Images, name: str, folder: Path | None, split: str, timeout: float) -> _Opened:
    """The split; a Hub is tried again for ``timeout`` seconds."""
    import datasets

    def opened() -> _Opened:
        builder = datasets.load_dataset_builder(
            str(folder or name), name=images.dataset_config, revision=None if folder else images.dataset_revision
        )
        typed_by_card = builder.info.features is not None
        dataset = builder.as_streaming_dataset(split=split)
        dataset = dataset if dataset.features else dataset._resolve_features()
        return _Opened(name, split, builder, dataset.decode(False), typed_by_card, timeout)

    patience = DataPatience(timeout)
    try:
        if folder or is_offline():
            return opened()
        with announced(f"data set {name}"):
            return retry(opened, name, patience, is_of_network)
    except UserError:
        raise
    except Exception as error:  # datasets, its file systems and the Hub client raise dozens of kinds here
        what = f"data folder {folder}" if folder else f"{name} is no local folder, and as a Hub data set it"
        text = one_line(error).rstrip(".")
        raise UserError(
            f"{what} cannot be opened, split {split}: {text}{_hint(text, images, folder, split)}"
        ) from error


def _hint(text: str, images: Images, folder: Path | None, split: str) -> str:
    """What helps against the error ``text`` of datasets."""
    if not folder and is_offline():
        return "; HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set, and there is no copy of it here: unset it"
    if "scripts are no longer supported" in text:
        return "; the Hub may have converted it: try --dataset-revision refs/convert/parquet"
    if "doesn't exist on the Hub" in text or "gated" in text:
        return "; check the name, and ask for access where it is private or gated: `hf auth login`, or set HF_TOKEN"
    if "[" in split:
        return f"; parts of a split only with hfds/: --dataset hfds/{images.dataset.partition('/')[2]}"
    if "config" in text.lower() and not images.dataset_config:
        return "; choose one by --dataset-config"
    return tar_hint(text)
