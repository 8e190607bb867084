"""Means of the loss parts, kept on the device: reading them is the only time that a step waits for the GPU."""

from typing import Any

import torch
from torch import Tensor

from dccd_timm.recipe import UserError


class LossMeter:
    """Sums of each scalar of a task's result, and the first update at which one was not finite."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: list[str] = []
        self.sums = self.first_bad = torch.empty(0, device=device)
        self.count = 0

    def add(self, result: dict[str, Tensor], update: int) -> None:
        """Take the scalars of one step; no wait."""
        if not self.names:
            self.names = [name for name, value in result.items() if value.ndim == 0]
            self.sums = torch.zeros(len(self.names), device=self.device)
            self.first_bad = torch.full((len(self.names),), -1, dtype=torch.long, device=self.device)
        values = torch.stack([result[name].detach().float() for name in self.names])
        bad = ~values.isfinite() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, update, self.first_bad)
        self.sums += values
        self.count += 1

    def state(self) -> dict[str, Any]:
        """Names, sums and count of this rank, to go on from; waits for the device. JSON."""
        return {"names": self.names, "sums": self.sums.tolist(), "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Take what :meth:`state` gave."""
        self.names, self.count = list(state["names"]), state["count"]
        self.sums = torch.tensor(state["sums"], dtype=torch.float32, device=self.device)
        self.first_bad = torch.full((len(self.names),), -1, dtype=torch.long, device=self.device)

    def means(self, epoch: int, accelerator: Any = None) -> dict[str, float]:
        """Mean of each part, over ranks when ``accelerator`` is given; waits for the device.

        Raises:
            UserError: names the part and the update of the first value that was not finite.
        """
        first_bad, sums = self.first_bad, self.sums / max(self.count, 1)
        if accelerator is not None and accelerator.num_processes > 1:
            first_bad = accelerator.gather(first_bad.unsqueeze(0)).amax(0)
            sums = accelerator.reduce(sums, "mean")
        broken = [(at, name) for at, name in zip(first_bad.tolist(), self.names, strict=True) if at >= 0]
        if broken:
            update = min(at for at, _ in broken)
            names = [name for at, name in broken if at == update]
            parts = [name for name in names if name != "loss"] or names
            raise UserError(
                f"the loss is not finite at update {update + 1} (epoch {epoch + 1}): {' and '.join(parts)} became NaN"
                " or infinite; lower --lr or that part's weight, or use --clip-grad; last/ holds the last good epoch"
            )
        return dict(zip(self.names, sums.tolist(), strict=True))
