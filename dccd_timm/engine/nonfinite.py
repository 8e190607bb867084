"""Updates whose gradients are not finite: found before the optimizer takes them, and skipped if the recipe says so."""

import logging

import torch
from torch import nn

from dccd_timm.engine.meter import LossMeter
from dccd_timm.errors import START_AGAIN, UserError

_logger = logging.getLogger(__name__)

# This many skipped updates in a row stop the run.
_IN_A_ROW = 10


class UpdateGuard:
    """Finds updates whose gradients are not finite; all ranks find the same, since DDP has averaged the gradients.

    With policy ``skip`` each update waits for the device, and BatchNorm statistics that the bad batch has changed are
    restored. With ``stop`` nothing waits: the update is noted, and the meter stops the run before anything is saved.

    Args:
        policy: ``skip`` or ``stop``.
        module: the module that is trained.
        scaled: whether float16's gradient scaler is in use: it skips such updates by itself, and lowers its scale.
        count: updates skipped so far.
    """

    def __init__(self, policy: str, module: nn.Module, scaled: bool, count: int = 0) -> None:
        self.skips, self.scaled = policy == "skip", scaled
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.buffers = [b for b in module.buffers() if b.is_floating_point()] if self.skips else []
        self.kept = [b.clone() for b in self.buffers]
        self.count, self.in_a_row = count, 0

    def may_update(self, meter: LossMeter, update: int) -> bool:
        """Whether the optimizer may step; with ``skip`` this waits for the device.

        Raises:
            UserError: after ten skipped updates in a row.
        """
        if self.scaled:
            return True
        grads = [p.grad for p in self.parameters if p.grad is not None]
        finite = torch.nn.utils.get_total_norm(grads, torch.inf).isfinite()
        if not self.skips:
            meter.note_gradients(finite, update)
            return True
        if bool(finite):
            self.in_a_row = 0
            for kept, buffer in zip(self.kept, self.buffers, strict=True):
                kept.copy_(buffer)
            return True
        self.count, self.in_a_row = self.count + 1, self.in_a_row + 1
        for kept, buffer in zip(self.kept, self.buffers, strict=True):
            buffer.copy_(kept)
        _logger.warning("update %d is skipped: its gradients are not finite (%d so far)", update + 1, self.count)
        if self.in_a_row >= _IN_A_ROW:
            raise UserError(
                f"{_IN_A_ROW} updates in a row, up to {update + 1}, had gradients that are not finite: lower --lr or a"
                f" loss weight, or use --clip-grad; then {START_AGAIN}"
            )
        return False
