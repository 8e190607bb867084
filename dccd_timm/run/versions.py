"""Files that a result of a run depends on, with what changes when they are written again."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def version_of(path: str) -> str:
    """A file with its size and time; an address as it is."""
    try:
        stat = Path(path).stat()
    except (OSError, ValueError):
        return path
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def hash_of(parts: Iterable[object]) -> str:
    """A hash of what a result depends on, by which it is found again."""
    return hashlib.sha256("\n".join(map(str, parts)).encode(errors="surrogateescape")).hexdigest()
