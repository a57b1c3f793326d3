"""Report the free memory of this machine, within the limits of this process, and return what is not used."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

_UNLIMITED = 2**60  # cgroups version 1 report "no limit" as a number close to 2**63

# By cgroups version: limit, usage, and the part of the usage that the system can reclaim.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def free_memory() -> int:
    """Return the bytes of memory that are free on this machine and within the cgroups of this process."""
    free = int(psutil.virtual_memory().available)
    within_cgroups = cgroup_memory()
    return free if within_cgroups is None else min(free, within_cgroups)


def release_memory() -> bool:
    """Return what glibc keeps of freed memory to the system; whether there was any.

    Arrays of some megabytes are freed into the heap of their thread, where later ones of other sizes do not
    fit: a process that computes for hours grows without it. It takes some milliseconds. With other C
    libraries nothing is done.
    """
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return None


def cgroup_memory(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes of memory that the cgroups of this process (job, container) leave free.

    ``distributed.system.memory_limit`` knows limits only: neither the usage nor nested cgroups.

    Parameters
    ----------
    membership
        File that lists the cgroups of this process.
    root
        Mount point of cgroups: version 2 there or in ``unified``, version 1 in ``memory``.

    Returns
    -------
    int or None
        The minimum over the cgroups and their parents; ``None`` without a limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return None
    free = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        for mount in (root / "memory",) if controllers else (root, root / "unified"):
            inside = mount / path.lstrip("/")
            # In a container the path may be that of the host, and only the mount itself exists.
            for folder in (inside, *inside.parents):
                if folder.is_relative_to(mount):
                    free += _free_in_cgroup(folder, version)
    return min(free, default=None)


def _free_in_cgroup(folder: Path, version: int) -> list[int]:
    """Return the free bytes of one cgroup; empty if it has no limit or the folder is no cgroup."""
    limit_file, usage_file, cache = _FILES[version]
    try:
        limit = (folder / limit_file).read_text().strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return []
        usage = int((folder / usage_file).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [max(0, int(limit) - usage + int(stat.get(cache, 0)))]
