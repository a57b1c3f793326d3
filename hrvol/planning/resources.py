"""Report free memory and disk space of this machine, and check read and write permissions."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from hrvol.errors import ResourceError
from hrvol.volume.storage.location import PARTIAL, Location

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


def held_memory() -> tuple[int, int]:
    """Return the bytes of this process: private ones, and those of mapped files such as libraries.

    The latter are in memory once for all processes.
    """
    info = psutil.Process().memory_info()
    shared = int(getattr(info, "shared", 0))
    return int(info.rss) - shared, shared


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


def existing_parent(path: Path) -> Path:
    """Return the path itself if it exists, otherwise its nearest existing parent."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists() or parent.is_symlink())


def free_disk(location: Location) -> tuple[int | None, int | None]:
    """Return the free bytes and the free number of files at an output's location; ``None`` if unknown."""
    if location.path is None:
        return None, None
    folder = existing_parent(location.path)
    free = shutil.disk_usage(folder).free
    files = os.statvfs(folder) if hasattr(os, "statvfs") else None
    # File systems without a fixed number of files report 0.
    return free, files.f_favail if files is not None and files.f_files else None


def check_writable(location: Location) -> None:
    """Check that an output can be created or resumed, by creating and removing a temporary file.

    URLs are not checked.

    Raises
    ------
    ResourceError
        The location is not writable.
    """
    if location.path is None:
        return
    try:
        folder = existing_parent(location.path)
    except OSError as error:
        raise ResourceError(f"{location}: cannot be written ({error.strerror})") from None
    if not folder.is_dir():
        raise ResourceError(f"{location}: cannot be written: found a file at {folder}, expected a folder")
    try:
        # Named like leftovers of a killed writer, which the next writer removes.
        with tempfile.NamedTemporaryFile(prefix="plan-", suffix=PARTIAL, dir=folder):
            pass
    except OSError as error:
        raise ResourceError(f"{location}: cannot write into {folder} ({error.strerror})") from None


def check_readable(*sources: str | Path | Location | None) -> None:
    """Check that local files and folders are readable.

    Existence and format are checked when the files are opened.

    Raises
    ------
    ResourceError
        Permission to read is denied.
    """
    for source in sources:
        path = None if source is None else Location.of(source).path
        if path is None:
            continue
        try:
            if path.is_dir():
                os.listdir(path)
                for name in ("zarr.json", ".zgroup", ".zarray", ".zattrs"):
                    with suppress(FileNotFoundError):
                        (path / name).open("rb").close()
            elif path.exists():
                path.open("rb").close()
        except PermissionError as error:
            raise ResourceError(f"{path}: cannot be read ({error.strerror}: {error.filename})") from None


def permission_denied(error: BaseException) -> bool:
    """Return whether an error or one of its causes is a :class:`PermissionError`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError):
            return True
        cause = cause.__cause__
    return False
