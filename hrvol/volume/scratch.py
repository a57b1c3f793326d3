"""Keep decoded chunks in a file on a local disk instead of in memory.

The file has no name: the operating system frees its space when the process ends, however it ends.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import ResourceError, UsageError
from hrvol.volume.plain_bytes import read_box, write_all

_PAGE = 4096
"""Bytes to which places in the file are rounded up."""


class Scratch:
    """A file of decoded chunks, for one process and any number of its threads.

    Parameters
    ----------
    folder
        Where the file is made; best on a fast local disk.

    Raises
    ------
    ResourceError
        The file cannot be made.
    """

    def __init__(self, folder: str) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="hrvol-", dir=folder)  # noqa: SIM115 - as long as this
        except OSError as error:
            raise ResourceError(f"{folder}: cannot hold a scratch file here: {error.strerror}") from None
        self._free: dict[int, list[int]] = {}  # by size: starts of places
        self._end = 0
        self._lock = threading.RLock()  # while it is held, Python may collect a chunk, whose end needs it

    def keep(self, values: NDArray[Any]) -> StoredChunk:
        """Write a chunk; its place is free again when nobody refers to the result.

        Raises
        ------
        OSError
            The disk is full.
        """
        size = -(-values.nbytes // _PAGE) * _PAGE
        with self._lock:
            places = self._free.get(size)
            if places:
                start = places.pop()
            else:
                start, self._end = self._end, self._end + size
        chunk = StoredChunk(self, start, size, values.shape, values.dtype)
        write_all(self._file.fileno(), values, start)
        return chunk

    def read(
        self, start: int, shape: Sequence[int], dtype: np.dtype[Any], spans: Sequence[range]
    ) -> NDArray[Any]:
        """Return a box of a chunk at a place."""
        return read_box(self._file.fileno(), dtype, shape, start, spans)

    def release(self, start: int, size: int) -> None:
        """Let another chunk take a place."""
        with self._lock:
            self._free.setdefault(size, []).append(start)


class StoredChunk:
    """A chunk in a scratch file, of which selections are read.

    Attributes
    ----------
    shape, dtype, nbytes
        Of the chunk.
    """

    def __init__(
        self, scratch: Scratch, start: int, size: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> None:
        self._scratch, self._start, self._size = scratch, start, size
        self.shape, self.dtype = tuple(shape), dtype
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize

    def __getitem__(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        spans = [range(length)[span] for span, length in zip(selection, self.shape, strict=True)]
        return self._scratch.read(self._start, self.shape, self.dtype, spans)

    def __del__(self) -> None:
        self._scratch.release(self._start, self._size)


def check_scratch(folder: str) -> str:
    """Return the absolute path of a folder for scratch files.

    Raises
    ------
    UsageError
        There is no such folder, or it cannot be written.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise UsageError(f"{folder}: found no folder, expected one for scratch files")
    try:
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written, expected a folder for scratch files: {error.strerror or error}"
        ) from None
    return str(path)
