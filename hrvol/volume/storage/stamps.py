"""Identify the state of a local file cheaply, to tell whether it was replaced or rewritten.

Contents are not compared: files are, by size, time of the last change, and number on their file system. That
costs microseconds per file. Of an object in a bucket this would cost a request; it has no stamp.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from typing import Any

Stamp = tuple[int, int, int]
"""Size, time of the last change, and number of a file; zeros if it does not exist."""

MISSING = (0, 0, 0)


def stamp_of(path: str) -> Stamp:
    """Return the stamp of a file."""
    try:
        status = os.stat(path)
    except OSError:
        return MISSING
    number = status.st_ino if _numbered(status.st_dev) else 0
    return status.st_size, status.st_mtime_ns, number


def metadata_stamps(root: str) -> tuple[tuple[str, Stamp], ...]:
    """Return the stamps of the files that describe an array."""
    stamps = []
    for name in ("zarr.json", ".zarray"):
        path = f"{root}/{name}"
        stamp = stamp_of(path)
        if stamp != MISSING:
            stamps.append((path, (_described(path, stamp), 0, 0)))
    return tuple(stamps)


@lru_cache(maxsize=64)
def _described(path: str, stamp: Stamp) -> int:
    """Return a digest of a file of metadata, without attributes: these may be added at any time."""
    try:
        with open(path, "rb") as file:
            values: Any = json.loads(file.read(2**24))
        values.pop("attributes", None)
        text = json.dumps(values, sort_keys=True)
    except (OSError, ValueError, AttributeError, RecursionError):
        text = repr(stamp)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=64)
def _numbered(device: int) -> bool:
    """Return whether a file system numbers its files for good; those in user space may not."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields = line.split()
                if len(fields) > 4 and fields[2] == wanted:
                    return not fields[fields.index("-") + 1].startswith("fuse")
    except (OSError, ValueError, IndexError):
        return True
    return True
