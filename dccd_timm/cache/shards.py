"""Files of answers: safetensors, written whole, mapped into memory, each row with a checksum."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from dccd_timm.atomic import write_with
from dccd_timm.cache.form import Rows

# Of a row beside the answers: what the views were drawn from, the epoch in it, a few of their pixels, and a hash of all
_SEEDS, _EPOCHS, SKETCHES, _HASHES = "seeds", "epochs", "sketches", "hashes"
_OWN = (_SEEDS, _EPOCHS, _HASHES)
PATTERN = "answers-*.safetensors"


@dataclass
class Shard:
    """One file, mapped into memory: ``seeds`` and ``epochs`` of its rows, and the rows themselves."""

    path: Path
    seeds: Tensor
    epochs: Tensor
    hashes: Tensor
    rows: Mapping[str, Tensor]

    def read(self, numbers: Tensor) -> tuple[Rows, Tensor]:
        """The rows of these numbers, and which of them are whole."""
        rows = {name: values[numbers] for name, values in self.rows.items()}
        found = hash_rows(self.seeds[numbers], rows)
        return rows, found == self.hashes[numbers]


def write_shard(path: Path, seeds: Tensor, epochs: Tensor, rows: Rows) -> None:
    """Write rows [R, ...] with what they were drawn from, whole or not at all."""
    parts = {_SEEDS: seeds, _EPOCHS: epochs, _HASHES: hash_rows(seeds, rows), **rows}
    fresh = path.with_name(f".{path.name}.new")
    try:
        write_with(path, lambda fresh: safetensors.torch.save_file(parts, fresh))
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def open_shard(path: Path) -> Shard:
    """A file of answers.

    Raises:
        OSError: when it cannot be read.
        SafetensorError: when it is cut short or damaged.
        KeyError: when it is no file of answers.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    rows = {name: values for name, values in parts.items() if name not in _OWN}
    return Shard(path, parts[_SEEDS].clone(), parts[_EPOCHS].clone(), parts[_HASHES].clone(), rows)


def hash_rows(seeds: Tensor, rows: Rows) -> Tensor:
    """A hash [R] of each row and of the seed that it belongs to."""
    parts = [rows[name].contiguous().flatten(1).view(torch.uint8).numpy() for name in sorted(rows)]
    hashes = np.empty(len(seeds), dtype=np.int64)
    for number, seed in enumerate(seeds.tolist()):
        digest = xxhash.xxh3_64(seed.to_bytes(8, "little"))
        for part in parts:
            digest.update(part[number].data)
        hashes[number] = digest.intdigest() >> 1
    return torch.from_numpy(hashes)
