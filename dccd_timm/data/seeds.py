"""Random numbers drawn from what they are for, and not from what was drawn before."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import get_worker_info


def hash_numbers(*numbers: int) -> int:
    """One 63-bit hash of several numbers, the same on every machine: a seed."""
    digest = hashlib.blake2b(np.array(numbers, dtype=np.int64).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(size: int, *numbers: int) -> torch.Tensor:
    """A permutation [size] that is drawn from these numbers."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(hash_numbers(*numbers)))


@contextlib.contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Iterator[int]:
    """Draw augmentations from these numbers, so that they do not depend on workers or on what was drawn before; yields
    the seed that they make.

    timm's transforms use all three global generators. Nothing else does in a worker; in the main process they are
    restored afterwards, that of an accelerator ``device`` too.
    """
    in_worker = get_worker_info() is not None
    states = None if in_worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    accelerator = torch.get_device_module(device) if device is not None and device.type != "cpu" else None
    device_state = accelerator.get_rng_state(device) if accelerator else None
    seed = hash_numbers(*numbers)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if accelerator:
        accelerator.manual_seed(seed)
    try:
        yield seed
    finally:
        if states:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
        if accelerator:
            accelerator.set_rng_state(device_state, device)
