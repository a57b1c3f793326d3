"""Read local Zarr hierarchies that others wrote: a missing chunk is no error there, an unreadable one is.

A missing chunk holds the fill value. ``LocalStore`` takes a folder, a dangling link or a range beyond the end
of a file for a missing chunk too, waits for ever on a named pipe, and reads files of any size.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from hrvol.errors import InputError
from hrvol.reading.bounded import file_kind
from hrvol.text import printable

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
"""Names of Zarr's own files; all others hold chunks."""

METADATA_BYTES = 32 * 2**20
"""Most bytes of one of them."""


class InputStore(LocalStore):
    """A local store for reading only, in which a chunk is a regular file or does not exist.

    Parameters
    ----------
    root
        The folder.
    read_only
        Always true.
    chunk_bytes
        Most bytes of a file of chunks that is read at once; ``None`` until the array is known.
    """

    def __init__(self, root: Path | str, *, read_only: bool = True, chunk_bytes: int | None = None) -> None:
        super().__init__(root, read_only=True)
        self.chunk_bytes = chunk_bytes

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value, or a range of its bytes; ``None`` if it does not exist."""
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value, or a range of its bytes; ``None`` if it does not exist."""
        data = self._read(key, byte_range)
        return None if data is None else (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def _read(self, key: str, byte_range: ByteRequest | None) -> bytes | None:
        path = self.root / key
        metadata = path.name in METADATA
        expected = "a file of metadata" if metadata else "a chunk"
        try:
            # Opening a named pipe would wait for its writer.
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            link = next((p for p in (path, *path.parents) if p.is_symlink() and not p.exists()), None)
            if link is not None and link != self.root:
                raise InputError(f"{_shown(key)}: found a dangling link, expected {expected}") from None
            return None
        except NotADirectoryError:
            if metadata:  # Zarr looks for nodes below what may be a file
                return None
            raise InputError(f"{_shown(key)}: found a file on its way, expected a folder") from None
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            os.close(handle)
            raise InputError(f"{_shown(key)}: found {file_kind(status.st_mode)}, expected {expected}")
        with os.fdopen(handle, "rb") as stream:
            if not status.st_size:
                raise InputError(f"{_shown(key)}: found an empty file, expected {expected}")
            start, stop = _span(byte_range, status.st_size)
            if not 0 <= start <= stop <= status.st_size:
                raise InputError(
                    f"{_shown(key)}: found {status.st_size:,} bytes, expected bytes {start:,} to {stop:,}"
                )
            limit = METADATA_BYTES if metadata else self.chunk_bytes
            if limit is not None and stop - start > limit:
                raise InputError(f"{_shown(key)}: found {stop - start:,} bytes, expected at most {limit:,}")
            stream.seek(start)
            data = stream.read(stop - start)
        if len(data) != stop - start:
            raise InputError(f"{_shown(key)}: found {len(data):,} bytes, expected {stop - start:,}")
        return data


def _span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """Return a range of bytes as start and stop."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    return 0, size


def _shown(key: str) -> str:
    return printable(key, 200)
