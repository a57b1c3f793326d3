"""Report memory of this process and disk space, and check read and write permissions."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

from hrvol.errors import ResourceError
from hrvol.memory import free_memory as free_memory
from hrvol.volume.storage.location import PARTIAL, Location


def held_memory() -> tuple[int, int]:
    """Return the bytes of this process: private ones, and those of mapped files such as libraries.

    The latter are in memory once for all processes.
    """
    info = psutil.Process().memory_info()
    shared = int(getattr(info, "shared", 0))
    return int(info.rss) - shared, shared


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
