"""Means of the loss terms, kept on the device: a step waits for the GPU only when they are read."""

import torch
from accelerate import Accelerator
from torch import Tensor

from dccd_timm.batch import MeterState
from dccd_timm.errors import UserError


class LossMeter:
    """Sums of each scalar of a task's result, and the first update at which one was not finite.

    With ``skips``, values that are not finite are left out and do not stop the run.
    """

    def __init__(self, device: torch.device, skips: bool = False) -> None:
        self.device, self.skips = device, skips
        self.names: list[str] = []
        self.sums = self.first_bad = torch.empty(0, device=device)
        self.first_bad_gradient = torch.full((), -1, dtype=torch.long, device=device)
        self.count = torch.zeros((), dtype=torch.long, device=device)

    def add(self, result: dict[str, Tensor], update: int) -> None:
        """Add the scalars of one step, without waiting for the device."""
        if not self.names:
            self.names = [name for name, value in result.items() if value.ndim == 0]
            self.sums = torch.zeros(len(self.names), device=self.device)
            self.first_bad = torch.full((len(self.names),), -1, dtype=torch.long, device=self.device)
        values = torch.stack([result[name].detach().float() for name in self.names])
        if self.skips:
            whole = values.isfinite().all()
            self.sums += torch.where(whole, values, 0.0)
            self.count += whole
            return
        bad = ~values.isfinite() & (self.first_bad < 0)
        self.first_bad = torch.where(bad, update, self.first_bad)
        self.sums += values
        self.count += 1

    def note_gradients(self, finite: Tensor, update: int) -> None:
        """Note whether an update's gradients were finite, without waiting: the weights go bad before any loss does."""
        bad = ~finite & (self.first_bad_gradient < 0)
        self.first_bad_gradient = torch.where(bad, update, self.first_bad_gradient)

    def state(self) -> MeterState:
        """Names, sums and count of this rank, for :meth:`load` after a resume; waits for the device. JSON."""
        return {"names": self.names, "sums": self.sums.tolist(), "count": int(self.count)}

    def load(self, state: MeterState) -> None:
        """Take what :meth:`state` gave."""
        self.names = list(state["names"])
        self.count = torch.tensor(state["count"], device=self.device)
        self.sums = torch.tensor(state["sums"], dtype=torch.float32, device=self.device)
        self.first_bad = torch.full((len(self.names),), -1, dtype=torch.long, device=self.device)

    def means(self, epoch: int, accelerator: Accelerator | None = None) -> dict[str, float]:
        """Mean of each term, over ranks when ``accelerator`` is given; waits for the device.

        Raises:
            UserError: names the term and the update of the first value that was not finite.
        """
        first_bad = torch.cat([self.first_bad, self.first_bad_gradient[None]])
        sums = self.sums / self.count.clamp(min=1)
        if accelerator is not None and accelerator.num_processes > 1:
            first_bad = accelerator.gather(first_bad.unsqueeze(0)).amax(0)
            sums = accelerator.reduce(sums, "mean")
        names = [*self.names, "the gradient"]
        bad = [(at, name) for at, name in zip(first_bad.tolist(), names, strict=True) if at >= 0]
        if bad:
            update = min(at for at, _ in bad)
            names = [name for at, name in bad if at == update]
            terms = [name for name in names if name not in ("loss", "the gradient")] or names
            good = "; last/ holds the last good epoch" if epoch else ""
            raise UserError(
                f"the loss is not finite at update {update + 1} (epoch {epoch + 1}): {' and '.join(terms)} became NaN"
                " or infinite; lower --lr or that term's weight, use --clip-grad, or --nonfinite skip to skip such"
                f" updates{good}"
            )
        return dict(zip(self.names, sums.tolist(), strict=True))
