"""Let one process draw in a store; the operating system ends the lock of a process that is killed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from hrvol.errors import BusyError, ResourceError
from hrvol.volume.storage.drawn import LOCK, owner_of


class StoreLock:
    """The lock of a store, held from the start.

    Parameters
    ----------
    folder
        Where the lock is; made if it does not exist.
    source
        Name of the store for messages.

    Raises
    ------
    BusyError
        The store is open already.
    ResourceError
        The folder cannot be written.
    """

    def __init__(self, folder: Path, source: str) -> None:
        owner = folder / "owner"
        try:
            folder.mkdir(exist_ok=True)
            self._lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise BusyError(f"{source}: {owner_of(folder)} draws in it, expected nobody else") from None
        except OSError as error:
            raise ResourceError(f"{source}: cannot be locked: {error.strerror or error}") from None
        try:
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError:
            owner.unlink(missing_ok=True)  # it is for messages only

    def release(self) -> None:
        """Let others open the store."""
        self._lock.release()
