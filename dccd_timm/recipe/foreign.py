"""Flags of timm's scripts that are not settings here."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ForeignFlag:
    """A flag that is only answered: taken over with a notice, or refused with the reason.

    timm's default is kept, because timm's args.yaml names all flags: a value equal to it says nothing.
    """

    name: str
    default: Any
    takes: int | str  # number of values: 0, 1 or "+"
    answer: str  # what the user reads

    @property
    def flag(self) -> str:
        """The spelling on the command line; timm's --local_rank is its only one with an underscore."""
        return "--" + (self.name if self.name == "local_rank" else self.name.replace("_", "-"))

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling: torch.distributed.launch writes --local-rank since PyTorch 2.0."""
        return (self.flag, "--local-rank") if self.name == "local_rank" else (self.flag,)


# Flags of timm before 0.8, of train.py and validate.py alike; the published lines of many students have them.
OLDER = (
    ForeignFlag("native_amp", False, 0, "it is timm's --amp today: use --amp"),
    ForeignFlag("apex_amp", False, 0, "Apex AMP is gone from timm; use --amp, which is PyTorch's own"),
    ForeignFlag("amp_impl", "native", 1, "--amp is PyTorch's own AMP, the only one; drop --amp-impl"),
    ForeignFlag("aot_autograd", False, 0, "functorch's compiler is gone; use --torchcompile"),
)
