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
