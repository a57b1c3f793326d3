"""Keep changes that the server has not received in a file, for the next connection.

The file is written while the server cannot be reached. It is deleted once the server has the changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import platformdirs

from hrvol.errors import InputError
from hrvol.files import atomic_write
from hrvol.interactive.remote.outbox import Records, frame_of
from hrvol.interactive.wire.changes import changes_of
from hrvol.interactive.wire.frame import Frame
from hrvol.reading.bounded import read_file

_MOST_BYTES = 2**30


def kept_folder() -> Path:
    """Return the folder of such files (it may not exist yet)."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    return Path(root) / "remote"


class Kept:
    """The file of one client; its lock ends with the process.

    Parameters
    ----------
    strokes
        Name of the strokes, with that of the server's machine.
    client
        Name of a new client.

    Attributes
    ----------
    client
        Name of the client: that of an earlier process, if that left changes.
    first
        Number of the first change that it left.
    changes
        What it left.
    """

    def __init__(self, strokes: str, client: str) -> None:
        self._folder = kept_folder()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = hashlib.sha256(strokes.encode()).hexdigest()[:32]
        self.client, self.first = client, 1
        self.changes: list[Records] = []
        self._lock = -1
        for path in sorted(self._folder.glob(f"{key}-*.changes")):
            if self._take(path):
                return
        self._path = self._folder / f"{key}-{client}.changes"
        self._lock = _locked(self._path.with_suffix(".lock"))

    @property
    def path(self) -> Path:
        """The file; it exists while changes are kept in it."""
        return self._path

    def write(self, first: int, changes: Sequence[Records]) -> None:
        """Write the changes that wait; without any, delete the file."""
        if not changes:
            self._path.unlink(missing_ok=True)
            return
        with atomic_write(self._path, durable=True) as partial:
            partial.write_bytes(frame_of(first, changes, client=self.client).encode())

    def set_aside(self) -> None:
        """Rename the file: its changes do not fit the strokes, which are other ones by now."""
        with suppress(OSError):
            self._path.rename(self._path.with_suffix(".damaged"))

    def close(self) -> None:
        """Release the lock."""
        if self._lock >= 0:
            if not self._path.exists():
                self._path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def _take(self, path: Path) -> bool:
        lock = _locked(path.with_suffix(".lock"))
        if lock < 0:
            return False
        try:
            data = read_file(path, _MOST_BYTES, "changes of strokes that were kept")
            frame = Frame.decode(data, str(path), _MOST_BYTES)
            first, self.changes = changes_of(frame, str(path))
            client = str(frame.values.get("client"))
            if not (client.isalnum() and path.stem.endswith(client)):
                raise InputError(f"{path}: found the changes of another client")
        except InputError:
            self.changes = []
            with suppress(OSError):
                path.rename(path.with_suffix(".damaged"))
            os.close(lock)
            return False
        self._path, self._lock, self.client, self.first = path, lock, client, first
        return True


def _locked(path: Path) -> int:
    """Return the handle of a locked file; -1 if another process has locked it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return -1
    return handle
