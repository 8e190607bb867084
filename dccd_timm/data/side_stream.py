"""A device's second queue of work: the next batch is copied and prepared while the present one is computed with."""

from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Self

import torch


class SideStream:
    """A stream beside the one that the training uses; the work of a ``with`` block goes there.

    The order of waiting is that of timm's PrefetchLoader: memory that the training has given back may be taken for the
    next batch, so a block waits for the work that the training has queued before it, and not for what comes after.

    Args:
        device: of a kind that has streams.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._module = device, torch.get_device_module(device)
        # one for the whole training: the allocator keeps freed memory by stream
        self.stream: torch.Stream = self._module.Stream(device=device)
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        self.stream.wait_stream(self._current())
        context: AbstractContextManager[object] = self._module.stream(self.stream)
        self._entered.enter_context(context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()

    def join(self) -> None:
        """Let the training's stream wait for the work of all blocks; this process does not wait."""
        self._current().wait_stream(self.stream)

    def _current(self) -> torch.Stream:
        stream: torch.Stream = self._module.current_stream(self.device)
        return stream


def side_stream(device: torch.device) -> SideStream | None:
    """A side stream, where the device has such: the CPU and mps have none."""
    if device.type == "cpu" or not hasattr(torch.get_device_module(device), "Stream"):
        return None
    return SideStream(device)
