"""What there is room for on this machine: memory, disk, and the right to read and write."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from hrvol.errors import ResourceError
from hrvol.volume.storage.location import PARTIAL, Location

_UNLIMITED = 2**60  # a limit in version 1 of cgroups that is none is a number about as large as can be

# Version 1 or 2: what is allowed, what is taken, and what of that the system gives back when it is needed.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def free_memory() -> int:
    """Return the bytes of memory that processes may still take: of the machine, and of this one's cgroups."""
    free = int(psutil.virtual_memory().available)
    allowed = cgroup_memory()
    return free if allowed is None else min(free, allowed)


def held_memory() -> tuple[int, int]:
    """Return the bytes that this process holds: its own, and those of files it has mapped, such as libraries.

    The latter are in memory once for all processes.
    """
    found = psutil.Process().memory_info()
    shared = int(getattr(found, "shared", 0))
    return int(found.rss) - shared, shared


def cgroup_memory(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes of memory that the cgroups of this process (job, container) still allow.

    Parameters
    ----------
    membership
        File that says which cgroups they are.
    root
        Where cgroups are mounted: version 2 there or in ``unified``, version 1 in ``memory``.

    Returns
    -------
    int or None
        The least of the cgroups and those around them; ``None`` where nothing is limited.
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
            # In a container the path may be that of the host, and only the mount itself be there.
            for folder in (inside, *inside.parents):
                if folder.is_relative_to(mount):
                    free += _left_in(folder, version)
    return min(free, default=None)


def _left_in(folder: Path, version: int) -> list[int]:
    """Return how much one cgroup still allows; nothing where it allows all, or is none."""
    limit, usage, cache = _FILES[version]
    try:
        allowed = (folder / limit).read_text().strip()
        if allowed == "max" or int(allowed) >= _UNLIMITED:
            return []
        taken = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [max(0, int(allowed) - taken + int(stat.get(cache, 0)))]


def existing_parent(path: Path) -> Path:
    """Return the nearest thing there is: the path itself, or what holds the place where it would be."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())


def free_disk(location: Location) -> tuple[int | None, int | None]:
    """Return the bytes and the number of files that fit where an output is to be; ``None`` if not known."""
    if location.path is None:
        return None, None
    place = existing_parent(location.path)
    free = shutil.disk_usage(place).free
    files = os.statvfs(place) if hasattr(os, "statvfs") else None
    # Some file systems make room for files as they come, and tell 0.
    return free, files.f_favail if files is not None and files.f_files else None


def check_writable(location: Location) -> None:
    """Make sure that an output can be made, or gone on with, by making something there; nothing stays.

    Of a URL nothing is known before something is written, and nothing is.

    Raises
    ------
    ResourceError
        It cannot.
    """
    if location.path is None:
        return
    try:
        place = existing_parent(location.path)
    except OSError as error:
        raise ResourceError(f"{location}: cannot be written ({error.strerror})") from None
    if not place.is_dir():
        raise ResourceError(f"{location}: cannot be written: found a file at {place}, expected a folder")
    try:
        # Named like what a killed writer leaves behind, which is cleared away by whoever writes next.
        with tempfile.NamedTemporaryFile(prefix="plan-", suffix=PARTIAL, dir=place):
            pass
    except OSError as error:
        raise ResourceError(f"{location}: cannot write into {place} ({error.strerror})") from None


def check_readable(*sources: str | Path | Location | None) -> None:
    """Make sure that files and folders may be read, where they are any on this machine.

    Whether they are there, and are what they should be, is for those to say who open them.

    Raises
    ------
    ResourceError
        One may not.
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
    """Whether an error, or what it came of, is that something may not be read or written."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError):
            return True
        cause = cause.__cause__
    return False
