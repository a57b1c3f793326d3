"""Report the free memory of this machine, within the limits of this process."""

from __future__ import annotations

from pathlib import Path

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
