"""``hfds/``: data sets that ``datasets`` downloads or converts as a whole, with random access."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dccd_timm.data.decode import Record
from dccd_timm.data.sources.base import Source
from dccd_timm.data.sources.class_map import read_class_map
from dccd_timm.data.sources.columns import find_columns, find_image_column, read_labels
from dccd_timm.data.sources.folders import check_one_split, class_order
from dccd_timm.data.sources.hfids import open_hfids
from dccd_timm.data.sources.hfids_files import are_remote, count_images, read_footers, tar_hint, with_own_names
from dccd_timm.data.sources.hfids_folder import metadata_files
from dccd_timm.data.sources.indexed import IndexedSource
from dccd_timm.errors import UserError, one_line
from dccd_timm.network import announced
from dccd_timm.recipe import Images
from dccd_timm.recipe.folders import check_data_folder

if TYPE_CHECKING:
    from datasets import Dataset


def open_hfds(images: Images, split: str, is_training: bool, num_samples: int | None) -> Source:
    """Open one split of ``hfds/<folder or Hub id>``, as timm's reader does, but with columns and classes as ``hfids/``.

    A local image folder is read as ``hfids/`` reads it: there is nothing to download or convert.

    Raises:
        UserError: for a data set, split or column that is not there, or a value that is no class.
    """
    import datasets  # slow to import
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    name = images.dataset.partition("/")[2]
    check_data_folder(images)
    is_local = Path(name).exists()
    where, is_part = f"{images.dataset}, split {split}", "[" in split
    with nullcontext() if is_local else announced(f"data set {where}"):
        with _in_one_line(where):
            builder = datasets.load_dataset_builder(
                name, name=images.dataset_config, revision=images.dataset_revision, cache_dir=images.data_dir
            )
        if is_local and isinstance(builder, ImageFolder) and not is_part:
            return open_hfids(replace(images, dataset=f"hfids/{name}", data_dir=None), split, is_training, num_samples)
        typed_by_card = builder.info.features is not None
        with _in_one_line(where):
            builder.download_and_prepare()
            dataset = builder.as_dataset(split=split)
    if images.is_unlabelled:
        image_key = find_image_column(dataset.features, images)
        return HfdsSource(dataset, image_key, [0] * len(dataset), None, None)
    image_key, target_key = find_columns(dataset.features, images)
    found = builder.config.data_files or {}
    files = [str(file) for file in found.get(split.partition("[")[0], [])]
    if len(found) == 1:
        check_one_split(files, split.partition("[")[0])
    footers = [] if are_remote(files) else read_footers(files, 0)
    count_images(None, files, image_key, footers)  # warns of images in tars that are not read
    features = with_own_names(dataset.features, target_key, footers, typed_by_card, where)
    class_map = read_class_map(images)
    labels = read_labels(target_key, features, class_map)
    values = dataset.select_columns([labels.column]).with_format("arrow")[:].column(0).to_pylist()
    targets, names = [labels.index(value) for value in values], labels.names
    if isinstance(builder, ImageFolder) and names and not class_map and not metadata_files(builder):
        targets, names = _numbered_as_folders(targets, names, is_part)
    return HfdsSource(dataset, image_key, targets, names, (image_key, labels.key))


@contextmanager
def _in_one_line(where: str) -> Iterator[None]:
    """Raise whatever datasets, its file systems and the Hub client raise as a UserError."""
    try:
        yield
    except Exception as error:
        text = one_line(error.__cause__ or error)
        raise UserError(f"data set {where}: {text}{tar_hint(text)}") from error


def _numbered_as_folders(
    targets: list[int | None], names: list[str], is_part: bool
) -> tuple[list[int | None], list[str]]:
    """Class folders as all readers number them; those of other splits only in a part, which may lack some."""
    found = {names[target] for target in targets if target is not None}
    ordered = class_order(names if is_part else found)
    index = {name: number for number, name in enumerate(ordered)}
    return [None if target is None else index[names[target]] for target in targets], ordered


class HfdsSource(IndexedSource):
    """A split with random access, and its class indices, None for an image without a class."""

    def __init__(
        self,
        dataset: "Dataset",
        image_key: str,
        targets: list[int | None],
        names: list[str] | None,
        columns: tuple[str, str] | None,
    ) -> None:
        import datasets

        rows = dataset.select_columns([image_key])
        if isinstance(rows.features[image_key], datasets.Image):
            rows = rows.cast_column(image_key, datasets.Image(decode=False))
        self.rows, self.image_key, self.targets = rows, image_key, targets
        self.names, self.columns, self.num_samples = names, columns, len(targets)

    def paths(self) -> Sequence[str]:
        """Those of the tables that datasets made."""
        return [str(file["filename"]) for file in self.rows.cache_files]

    def record(self, index: int) -> Record:
        """The image at ``index``, undecoded."""
        image = self.rows[index][self.image_key]
        path = image.get("path") if isinstance(image, dict) else None
        return Record(image, self.targets[index], self.name(index) + (f" ({path})" if path else ""))

    def name(self, index: int) -> str:
        """Number of an image: paths may repeat, or there are none."""
        return f"sample {index}"
