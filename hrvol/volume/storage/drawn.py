"""Keep strokes that are drawn from being replaced: those in use, and those that are only in a journal yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hrvol.errors import BusyError, InputError, OutputExistsError
from hrvol.reading.bounded import read_file
from hrvol.text import printable
from hrvol.volume.storage.location import Location

FOLDER = ".drawing"
"""Folder of the journal of strokes, in that of their array."""

LOCK = "lock"
"""File in it that is locked while a process draws."""

_JOURNAL = "journal-*.bin"

_ARRAYS = ("*", "labels/*/*")
"""Where arrays of labels are in an output."""


def check_not_drawn(location: Location) -> None:
    """Check that nobody draws at a place, and that nothing drawn there waits to be stored.

    Raises
    ------
    BusyError
        A process, or this one, draws in labels there.
    OutputExistsError
        There is the journal of a process that was killed.
    """
    for folder in drawing_folders(location):
        if is_locked(folder):
            raise BusyError(f"{location}: {owner_of(folder)} draws in it; it is not overwritten")
        if has_journal(folder):
            raise OutputExistsError(
                f"{location}: found strokes that are drawn and not stored yet, expected an earlier output;"
                " it is not overwritten"
            )


def drawing_folders(location: Location) -> Iterator[Path]:
    """Yield the folders of journals of strokes that are stored at a local place."""
    if location.path is None or location.inside:
        return
    for pattern in _ARRAYS:
        yield from location.path.glob(f"{pattern}/{FOLDER}")


def has_journal(folder: Path) -> bool:
    """Whether strokes are recorded that are not stored as chunks yet."""
    return any(path.stat().st_size for path in folder.glob(_JOURNAL))


def is_locked(folder: Path) -> bool:
    """Whether a process draws."""
    lock = folder / LOCK
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0, thread_local=False):
            return False
    except Timeout:
        return True
    except OSError:  # of another user, for instance
        return False


def owner_of(folder: Path) -> str:
    """Return the name of the process that draws, as far as it is known."""
    try:
        name = read_file(folder / "owner", 300, "the name of a process").decode(errors="replace")
    except InputError:
        return "another process"
    return printable(name, 300)
