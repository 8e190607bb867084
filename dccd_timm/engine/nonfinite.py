"""Updates whose gradients are not finite: noticed before the optimizer takes them, and left out when that is wanted."""

import logging

import torch
from torch import nn

from dccd_timm.engine.meter import LossMeter
from dccd_timm.errors import UserError

_logger = logging.getLogger(__name__)

# So many in a row are no accident.
_IN_A_ROW = 10


class UpdateGuard:
    """Tells an update whose gradients are not finite, the same on every rank, since DDP has averaged them.

    With policy ``skip`` each update waits for the device, and BatchNorm statistics that the bad batch has spoilt are
    put back. With ``stop`` nothing waits: the update is noted, and the meter stops the run before anything is saved.

    Args:
        policy: ``skip`` or ``stop``.
        module: what is trained.
        scaled: float16's gradient scaler is at work: it leaves such updates out by itself, and lowers its scale.
    """

    def __init__(self, policy: str, module: nn.Module, scaled: bool) -> None:
        self.skips, self.scaled = policy == "skip", scaled
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.buffers = [b for b in module.buffers() if b.is_floating_point()] if self.skips else []
        self.kept = [b.clone() for b in self.buffers]
        self.count = self.row = 0

    def passes(self, meter: LossMeter, update: int) -> bool:
        """Whether the optimizer may step; with ``skip`` this waits for the device.

        Raises:
            UserError: after ten updates in a row that could not be made.
        """
        if self.scaled:
            return True
        grads = [p.grad for p in self.parameters if p.grad is not None]
        finite = torch.nn.utils.get_total_norm(grads, torch.inf).isfinite()
        if not self.skips:
            meter.note_gradients(finite, update)
            return True
        if bool(finite):
            self.row = 0
            for kept, buffer in zip(self.kept, self.buffers, strict=True):
                kept.copy_(buffer)
            return True
        self.count, self.row = self.count + 1, self.row + 1
        for kept, buffer in zip(self.kept, self.buffers, strict=True):
            buffer.copy_(kept)
        _logger.warning("update %d is skipped: its gradients are not finite (%d so far)", update + 1, self.count)
        if self.row >= _IN_A_ROW:
            raise UserError(
                f"{_IN_A_ROW} updates in a row, up to {update + 1}, had gradients that are not finite: lower --lr or a"
                " loss weight, or use --clip-grad; go on from the last state with --resume"
            )
        return False
