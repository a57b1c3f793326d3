"""Append records to files so that a kill at any moment loses no record that was written before.

A record is a mark, its length, a checksum and its bytes. What follows an incomplete record at the end of a
file was never written; what is damaged in the middle is skipped, up to the next mark with a valid checksum.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hrvol.reading.bounded import read_file
from hrvol.volume.storage.location import sync_folder

MOST_BYTES = 2**31
"""Most bytes of a file of the journal that is read."""

SPLIT = 2**30
"""Bytes of a file after which records go to the next one, also in the middle of an edit."""

_MARK = b"hrvS"

_FRAME = struct.Struct("<4sII")

_Waiting = tuple[int, int, bytes]
"""Number of a record, number of its file, and its bytes."""

_NAME = re.compile(r"journal-([0-9]{8})\.bin")


class Journal:
    """The journal of one process, in numbered files of a folder.

    Parameters
    ----------
    folder
        Where the files are; it exists.
    number
        Of the first file: above those that exist.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number, self._size = number, 0  # of the file that records go to, and their bytes
        self._names = threading.Lock()  # of the list of records; held for moments
        self._files = threading.RLock()  # held while files are written
        self._count = self._last_written = self._last_synced = 0  # numbers of records
        self._pending: list[_Waiting] = []
        self._unsynced: list[_Waiting] = []
        self._handle = -1
        self._open = 0  # number of the file that is open
        self._end = self._synced = 0  # bytes of it

    @property
    def waiting(self) -> bool:
        """Whether records are in memory only."""
        return self._last_written < self._count

    @property
    def unsynced(self) -> bool:
        """Whether records are not safe from a power cut."""
        return self._last_synced < self._count

    def append(self, records: Sequence[bytes]) -> None:
        """Add records that belong together; nothing is written yet."""
        with self._names:
            for record in records:
                data = _framed(record)
                if self._size and self._size + len(data) > SPLIT:
                    self._number, self._size = self._number + 1, 0
                self._count += 1
                self._size += len(data)
                self._pending.append((self._count, self._number, data))

    def rotate(self) -> int:
        """Let later records go to another file, and return the number of the present one."""
        with self._names:
            self._number, self._size = self._number + 1, 0
            return self._number - 1

    def write(self) -> None:
        """Write what was appended: it outlives this process, but not the machine.

        Raises
        ------
        OSError
            The disk is full, for instance. Records stay in memory, and nothing of them in the file.
        """
        with self._files:
            with self._names:
                records, self._pending = self._pending, []
            try:
                for number in dict.fromkeys(number for _, number, _ in records):
                    self._choose(number)
                    own = [record for record in records if record[1] == number]
                    self._write(b"".join(data for _, _, data in own))
                    self._unsynced += own
                    self._last_written = own[-1][0]
                    records = records[len(own) :]
            except BaseException:
                self._put_back(records)
                raise

    def sync(self) -> None:
        """Write what was appended, and wait until it is on the disk; as :meth:`write`."""
        with self._files:
            self.write()
            self._sync()

    def cut(self, number: int) -> None:
        """Delete the files up to a number: what they hold is stored elsewhere."""
        with self._files:
            if self._open and self._open <= number:
                self._sync()
                os.close(self._handle)
                self._open = 0
            gone = [path for path in journal_files(self._folder) if number_of(path) <= number]
            for path in gone:
                path.unlink(missing_ok=True)
            if gone:
                sync_folder(self._folder)  # or an old file might come back alone after a power cut

    def close(self) -> None:
        """Close the file."""
        with self._files:
            if self._open:
                os.close(self._handle)
                self._open = 0

    def _choose(self, number: int) -> None:
        """Open the file of a number for writing, in which all but the first record follow."""
        if self._open == number:
            return
        if self._open:
            self._sync()
            os.close(self._handle)
            self._open = 0
        path = self._folder / f"journal-{number:08d}.bin"
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._open, self._end = number, os.fstat(self._handle).st_size
        self._synced = self._end
        sync_folder(self._folder)

    def _write(self, data: bytes) -> None:
        view, at = memoryview(data), self._end
        try:
            while view:
                count = os.pwrite(self._handle, view, at)
                view, at = view[count:], at + count
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._handle, self._end)
            raise
        self._end = at

    def _sync(self) -> None:
        if not self._unsynced:
            return
        try:
            os.fsync(self._handle)
        except OSError:  # the file system has forgotten what it could not write
            with suppress(OSError):
                os.ftruncate(self._handle, self._synced)
            self._end = self._synced
            records, self._unsynced = self._unsynced, []
            self._last_written = self._last_synced
            self._put_back(records)
            raise
        self._last_synced = self._unsynced[-1][0]
        self._synced, self._unsynced = self._end, []

    def _put_back(self, records: list[_Waiting]) -> None:
        with self._names:
            self._pending = sorted(records + self._pending)


def journal_files(folder: Path) -> list[Path]:
    """Return the files of a journal, in order."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(names) if _NAME.fullmatch(name)]


def number_of(path: Path) -> int:
    """Return the number of a file of a journal."""
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def read_records(path: Path) -> tuple[list[bytes], bool]:
    """Return the valid records of a file, and whether something between or after them is damaged.

    A record that the end of the file cuts off is no damage: writing it was interrupted.
    """
    data = read_file(path, MOST_BYTES, "a journal of strokes")
    records: list[bytes] = []
    at, damaged = 0, False
    while at < len(data):
        record = _record_at(data, at)
        if record is not None:
            records.append(record)
            at += _FRAME.size + len(record)
            continue
        found = data.find(_MARK, at + 1)
        while found >= 0 and _record_at(data, found) is None:
            found = data.find(_MARK, found + 1)
        if found < 0:
            return records, damaged or not _cut_off(data, at)
        at, damaged = found, True
    return records, damaged


def _framed(record: bytes) -> bytes:
    return _FRAME.pack(_MARK, len(record), zlib.crc32(record)) + record


def _record_at(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _FRAME.size:
        return None
    mark, size, checksum = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if mark != _MARK or size > len(data) - start:
        return None
    record = data[start : start + size]
    return record if zlib.crc32(record) == checksum else None


def _cut_off(data: bytes, at: int) -> bool:
    """Whether the bytes from a place on are the beginning of a record."""
    rest = data[at:]
    if len(rest) < _FRAME.size:
        return _MARK.startswith(rest[:4]) or rest.startswith(_MARK)
    mark, size, _ = _FRAME.unpack_from(rest)
    return bool(mark == _MARK) and size > len(rest) - _FRAME.size
