"""Memory of tensors that are made and freed while a block runs, by part; fake tensors cost nothing and count as real.

torch.distributed's MemTracker is private, fails on a frozen module and takes one iteration.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

# What every tensor is that nothing else was said of
ACTIVATIONS = "activations"


class _Entry(NamedTuple):
    part: str
    size: int
    reference: object  # keeps the weak reference alive


class Ledger(TorchDispatchMode):
    """Counts the bytes of all tensors that operations in the block return, by part, and keeps those of the peak.

    What an operation needs for itself, as a workspace, is not seen. Where a value decides what is computed, it is
    2, or 1 where it is an integer.

    Args:
        aside: a part that does not decide where the peak is.
    """

    def __init__(self, aside: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.aside = aside
        self.parts: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._entries: dict[int, _Entry] = {}

    def assign(self, part: str, tensors: Iterable[Tensor]) -> None:
        """Count ``tensors``, from now on, as this ``part``."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            known = self._entries.get(id(storage))
            if known is not None:
                self.parts[known.part] -= known.size
            self._add(part, storage)

    def forget_peak(self) -> None:
        """Look for the peak from here on."""
        self.peak = Counter(self.parts)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and count what it returns."""
        if func is torch.ops.aten._local_scalar_dense.default:
            tensor = args[0]
            assert isinstance(tensor, Tensor)
            return 2.0 if tensor.dtype.is_floating_point else tensor.dtype == torch.bool or 1
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor) and id(value.untyped_storage()) not in self._entries:
                self._add(ACTIVATIONS, value.untyped_storage())
        return result

    def _add(self, part: str, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._entries[key] = _Entry(part, size, weakref.ref(storage, lambda _: self._remove(key)))
        self.parts[part] += size
        if self._total(self.parts) > self._total(self.peak):
            self.peak = Counter(self.parts)

    def _total(self, parts: Counter[str]) -> int:
        return parts.total() - (parts[self.aside] if self.aside else 0)

    def _remove(self, key: int) -> None:
        entry = self._entries.pop(key)
        self.parts[entry.part] -= entry.size
