"""The answers of a folder: found by what the views were drawn from, and written in files of a rank's own."""

import logging
import secrets
from collections import Counter
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from dccd_timm.cache.form import Rows
from dccd_timm.cache.shards import PATTERN, Shard, open_shard, write_shard
from dccd_timm.errors import one_line

_logger = logging.getLogger(__name__)

# Bytes of rows that are collected before they are written as one file.
_SHARD_BYTES = 64 * 2**20


class AnswerStore:
    """Rows by the seeds that their views were drawn from; of two rows of a seed the one in the later file counts.

    Args:
        folder: it need not exist until something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.writes = folder, False
        self.shards: dict[str, Shard] = {}
        self.torn: dict[str, str] = {}  # files that cannot be read, with the reason
        self._name = secrets.token_hex(4)
        self._new: list[tuple[Tensor, Tensor, Rows]] = []
        self._new_bytes = 0
        self._order: list[Shard] = []
        self._seeds = torch.empty(0, dtype=torch.long)
        self._places = torch.empty(0, 2, dtype=torch.long)  # number of the shard and of the row, by seed
        self._spoilt = set[int]()
        self.refresh()

    def refresh(self) -> None:
        """Look for files that other ranks, or other runs, have written."""
        for path in sorted(self.folder.glob(PATTERN)):
            if path.name in self.shards or path.name in self.torn:
                continue
            try:
                self.shards[path.name] = open_shard(path)
            except (OSError, KeyError, safetensors.SafetensorError) as error:
                self.torn[path.name] = one_line(error, 120)
                _logger.warning("%s is damaged, and its answers are computed again: %s", path, one_line(error, 120))
        self._index()

    def _index(self) -> None:
        self._order = [self.shards[name] for name in sorted(self.shards)]
        self._spoilt.clear()
        if not self._order:
            return
        seeds = torch.cat([shard.seeds for shard in self._order])
        places = torch.cat([
            torch.stack([torch.full_like(shard.seeds, number), torch.arange(len(shard.seeds))], dim=1)
            for number, shard in enumerate(self._order)
        ])  # fmt: skip
        seeds, order = seeds.sort(stable=True)
        last = torch.cat([seeds[1:] != seeds[:-1], torch.ones(1, dtype=torch.bool)])
        self._seeds, self._places = seeds[last], places[order][last]

    def counts(self) -> Counter[int]:
        """Images with answers, by the epoch that their views were drawn from."""
        if not len(self._seeds):
            return Counter()
        epochs = torch.cat([shard.epochs for shard in self._order])
        starts = torch.tensor([0, *(len(shard.seeds) for shard in self._order)]).cumsum(0)
        own = epochs[starts[self._places[:, 0]] + self._places[:, 1]]
        values, counts = own.unique(return_counts=True)
        return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    @property
    def num_bytes(self) -> int:
        """Size of its files on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob(PATTERN))

    def read(self, seeds: Tensor) -> tuple[Rows, Tensor]:
        """The rows [B, ...] of these seeds, and which of them were found whole; the others hold nothing of use."""
        found = torch.zeros(len(seeds), dtype=torch.bool)
        rows: Rows = {}
        if not len(self._seeds):
            return rows, found
        slots = torch.searchsorted(self._seeds, seeds).clamp(max=len(self._seeds) - 1)
        known = self._seeds[slots] == seeds
        if self._spoilt:
            known &= torch.tensor([seed not in self._spoilt for seed in seeds.tolist()])
        places = self._places[slots]
        for number in places[known, 0].unique().tolist():
            here = (known & (places[:, 0] == number)).nonzero().flatten()
            part, whole = self._order[number].read(places[here, 1])
            for name, values in part.items():
                target = rows.setdefault(name, values.new_zeros(len(seeds), *values.shape[1:]))
                target[here] = values
            found[here] = whole
            if not whole.all():
                self._report_spoilt(self._order[number], seeds[here[~whole]].tolist())
        return rows, found

    def _report_spoilt(self, shard: Shard, seeds: list[int]) -> None:
        if shard.path.name not in self.torn:
            self.torn[shard.path.name] = "rows do not have their checksums"
            _logger.warning("%s is damaged in places, and these answers are computed again", shard.path)
        self._spoilt.update(seeds)

    def add(self, seeds: Tensor, epochs: Tensor, rows: Rows) -> None:
        """Keep rows [R, ...], unless this store only reads; they can be read once they are written."""
        if not self.writes or not len(seeds):
            return
        self._new.append((seeds, epochs, rows))
        self._new_bytes += sum(values.nbytes for values in rows.values())
        if self._new_bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added. A disk that refuses ends the writing, not the run."""
        if not self._new:
            return
        seeds, epochs, rows = zip(*self._new, strict=True)
        joined = {name: torch.cat([part[name] for part in rows]) for name in rows[0]}
        self._new, self._new_bytes = [], 0
        numbers = [int(path.name.split("-")[1]) for path in self.folder.glob(PATTERN)]
        path = self.folder / f"answers-{max(numbers, default=0) + 1:06d}-{self._name}.safetensors"
        try:
            write_shard(path, torch.cat(seeds), torch.cat(epochs), joined)
        except (OSError, safetensors.SafetensorError) as error:
            self.writes = False
            _logger.warning(
                "%s cannot be written (%s): the run goes on and keeps no more of the teacher's answers",
                self.folder, one_line(error, 120),
            )  # fmt: skip
