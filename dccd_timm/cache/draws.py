"""Random numbers that making a network takes: where it is not made, the generator is moved on by as many, so that what
is drawn afterwards is the same."""

import torch
from torch import Tensor

_CHUNK = 2**22
_MARK = 8  # numbers in a row by which a place in the sequence is known


def count_draws(before: Tensor, after: Tensor, limit: int = 2**32) -> int | None:
    """Numbers between two states of torch's generator on the CPU; None when they are more than ``limit``."""
    generator = torch.Generator()
    generator.set_state(after)
    mark = _draw(_MARK, generator)
    generator.set_state(before)
    window, begin = _draw(_MARK, generator), 0
    while begin <= limit:
        window = torch.cat([window, _draw(_CHUNK, generator)])
        for place in (window[: 1 - _MARK] == mark[0]).nonzero().flatten().tolist():
            if torch.equal(window[place : place + _MARK], mark):
                return int(begin + place)
        begin += len(window) - _MARK + 1
        window = window[1 - _MARK :]
    return None


def skip_draws(count: int) -> None:
    """Move torch's global generator on the CPU by as many numbers."""
    for begin in range(0, count, _CHUNK):
        _draw(min(_CHUNK, count - begin), torch.default_generator)


def _draw(count: int, generator: torch.Generator) -> Tensor:
    """Numbers of 31 bits, each from one output of the generator."""
    return torch.empty(count, dtype=torch.int32).random_(generator=generator)
