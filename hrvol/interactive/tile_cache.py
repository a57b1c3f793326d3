"""Keep the tokens of tiles on disk, in half precision, by what they were computed from.

A file holds the arrays of one tile in the format of safetensors, with its key and a checksum; no pickle. A
file that is damaged, or of another key, is deleted and computed again. The least recently used files are
deleted when all together exceed a bound. Sessions share the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from hrvol.files import atomic_write

MOST_BYTES = 20 * 2**30
"""Size of all files above which the least recently used ones are deleted."""

_HEADER = 2**16  # bytes that a file may have besides its arrays

_SUFFIX = ".safetensors"


def cache_dir() -> Path:
    """Return the folder of the tiles of all sessions (it may not exist yet)."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    return Path(root) / "interactive"


def key_of(values: Mapping[str, Any]) -> str:
    """Return a digest of JSON values that determine the arrays of a tile."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class TileCache:
    """A folder of tiles.

    Parameters
    ----------
    folder
        The folder, which is made when the first tile is written.
    most_bytes
        Size of all files above which the least recently used ones are deleted.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self._most = most_bytes
        self._lock = threading.Lock()
        self._size = self._count()

    def read(self, key: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float16]] | None:
        """Return the arrays of a tile, or ``None`` if there are none, or none that can be used.

        Parameters
        ----------
        key
            From :func:`key_of`.
        shapes
            Names and shapes of the arrays.
        """
        file = self._file(key)
        try:
            size = file.stat().st_size
        except OSError:
            return None
        arrays = _read(file, key, shapes, size)
        if arrays is None:
            self._delete(file, size)
        else:
            with suppress(OSError):
                os.utime(file)
        return arrays

    def write(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the arrays of a tile, rounded to half precision. What cannot be written is not kept."""
        from safetensors.numpy import save

        halves = {name: np.ascontiguousarray(values, np.float16) for name, values in arrays.items()}
        size = sum(values.nbytes for values in halves.values())
        if size > self._most // 4:
            return
        data = save(halves, metadata={"key": key, "crc32": str(_checksum(halves))})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file(key)) as partial:
                partial.write_bytes(data)
        except OSError:  # a full disk: the session works without
            return
        with self._lock:
            self._size += len(data)
            full = self._size > self._most
        if full:
            self.tidy()

    def tidy(self) -> None:
        """Delete the least recently used files until all together are smaller than the bound by a tenth."""
        files = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with suppress(OSError):
                        state = entry.stat()
                        files.append((state.st_mtime, state.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= 0.9 * self._most:
                break
            with suppress(OSError):
                os.unlink(path)
                total -= size
        with self._lock:
            self._size = total

    def _count(self) -> int:
        total = 0
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += entry.stat().st_size
        return total

    def _delete(self, file: Path, size: int) -> None:
        with suppress(OSError):
            file.unlink()
        with self._lock:
            self._size -= size

    def _file(self, key: str) -> Path:
        return self.folder / f"{key[:40]}{_SUFFIX}"


def _read(
    file: Path, key: str, shapes: Mapping[str, tuple[int, ...]], size: int
) -> dict[str, NDArray[np.float16]] | None:
    from safetensors import SafetensorError, safe_open

    expected = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    if not file.is_file() or not expected <= size <= expected + _HEADER:
        return None
    try:
        with safe_open(file, "numpy") as stored:
            about = stored.metadata() or {}
            if about.get("key") != key or set(stored.keys()) != set(shapes):
                return None
            for name, shape in shapes.items():
                part = stored.get_slice(name)
                if part.get_dtype() != "F16" or tuple(part.get_shape()) != shape:
                    return None
            arrays = {name: stored.get_tensor(name) for name in shapes}
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    if about.get("crc32") != str(_checksum(arrays)):
        return None
    return arrays


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].data, total)
    return total
