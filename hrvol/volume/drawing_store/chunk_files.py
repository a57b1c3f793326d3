"""Read and write the chunks of strokes as files, many at once, durably."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.array import AsyncArray
from zarr.storage import MemoryStore, StorePath

from hrvol.arrays import Shape3
from hrvol.errors import UnreadableError, first_line
from hrvol.volume.drawing_store.chunk_codec import ChunkCodec
from hrvol.volume.drawing_store.layout import Layout
from hrvol.volume.grid.tiling import box_shape
from hrvol.volume.storage.location import PARTIAL, sync_folder

_AT_ONCE = 64
"""Chunks that are encoded before their files are written."""

_THREADS = 8  # that wait for the disk

FileStamp = tuple[int, int]
"""Size and time of the last change, in nanoseconds, of a file."""


class ChunkFiles:
    """The files of the chunks of strokes; one writer.

    Parameters
    ----------
    layout
        Where they are.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._keys = layout.metadata.encode_chunk_key
        self._codec = ChunkCodec.of(layout.metadata)
        self._most = 2 * int(np.prod(layout.chunk)) * layout.labels.dtype.itemsize + 2**16  # bytes of a file

    def read(self, index: Shape3) -> NDArray[Any]:
        """Return a chunk of the full shape, 0 beyond the volume; :class:`InputError` if it is damaged."""
        layout = self._layout
        whole = np.zeros(layout.chunk, layout.labels.dtype)
        z, y, x = (
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(index, layout.chunk, layout.shape, strict=True)
        )
        inside = tuple(slice(0, n) for n in box_shape((z, y, x)))
        whole[inside] = layout.labels.read((z, y, x)) if self._codec is None else self._decoded(index)[inside]
        return whole

    def _decoded(self, index: Shape3) -> NDArray[Any]:
        codec, chunk, path = self._codec, self._layout.chunk, self.path(index)
        assert codec is not None
        try:
            data = path.read_bytes() if path.stat().st_size <= self._most else b""
            return codec.decode(data).reshape(chunk)
        except FileNotFoundError:
            return np.zeros(chunk, np.uint8)
        except (OSError, ValueError) as error:
            raise UnreadableError(f"{path}: cannot read a chunk of strokes: {first_line(error)}") from None

    def path(self, index: Shape3) -> Path:
        """Return the file of a chunk."""
        return self._layout.folder / self._keys(index[3 - self._layout.labels.ndim :])

    def stamp(self, index: Shape3) -> FileStamp | None:
        """Return the stamp of a file; ``None`` if it does not exist."""
        try:
            status = os.stat(self.path(index))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size, status.st_mtime_ns

    def write(self, chunks: Iterable[tuple[Shape3, NDArray[Any]]]) -> None:
        """Write chunks of the full shape; the files of those without any voxel are deleted.

        Readers see an old chunk or a new one. All are on the disk when this returns.

        Raises
        ------
        OSError
            The disk is full, for instance. Chunks are those before or the new ones.
        """
        batch: dict[Shape3, NDArray[Any]] = {}
        for index, values in chunks:
            batch[index] = values
            if len(batch) == _AT_ONCE:
                self._write(batch)
                batch = {}
        if batch:
            self._write(batch)

    def _write(self, chunks: Mapping[Shape3, NDArray[Any]]) -> None:
        encoded = self._encoded(chunks)
        folders: dict[Path, None] = {}
        for path, data in encoded.items():
            if data is None:
                with suppress(FileNotFoundError):
                    path.unlink()
                    folders[path.parent] = None
            else:
                for folder in _made(path.parent):
                    folders[folder.parent] = None
                folders[path.parent] = None
        written = {path: data for path, data in encoded.items() if data is not None}
        partials = {path: path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}") for path in written}
        try:
            _each(lambda path: _write_synced(partials[path], written[path]), written)
            for path, partial in partials.items():
                os.replace(partial, path)
        finally:
            for partial in partials.values():
                partial.unlink(missing_ok=True)
        _each(sync_folder, [folder for folder in folders if folder.is_dir()])

    def _encoded(self, chunks: Mapping[Shape3, NDArray[Any]]) -> dict[Path, bytes | None]:
        """Return the bytes of chunks; ``None`` for those without any voxel."""
        layout, codec = self._layout, self._codec
        if codec is not None:
            return {
                self.path(index): codec.encode(values.reshape(codec.shape)) if values.any() else None
                for index, values in chunks.items()
            }
        store = MemoryStore()
        array = zarr.Array(AsyncArray(metadata=layout.metadata, store_path=StorePath(store)))
        found: dict[Path, bytes | None] = {}
        for index, values in chunks.items():
            path = self.path(index)
            if not values.any():
                found[path] = None
                continue
            first = [i * side for i, side in zip(index, layout.chunk, strict=True)]
            spans = [
                slice(a, min(a + side, n))
                for a, side, n in zip(first, layout.chunk, layout.shape, strict=True)
            ]
            kept = values[tuple(slice(0, span.stop - span.start) for span in spans)]
            dropped = 3 - array.ndim
            array[tuple(spans[dropped:])] = kept.reshape(kept.shape[dropped:])
            key = self._keys(index[dropped:])
            found[path] = store._store_dict[key].to_bytes()
        return found

    def stored(self) -> dict[Shape3, FileStamp]:
        """Return the chunks that have files, and their stamps; unfinished files are deleted."""
        layout = self._layout
        dimensions, sides = layout.labels.ndim, layout.grid.counts
        lead = "c" if str(self._keys((0,) * dimensions)).startswith("c/") else ""
        found: dict[Shape3, FileStamp] = {}
        for entry in _files(layout.folder / lead):
            name = os.path.relpath(entry.path, layout.folder)
            if name.endswith(PARTIAL):
                os.unlink(entry.path)
                continue
            numbers = [int(part) for part in name.replace(".", "/").split("/") if part.isdecimal()]
            index = (0,) * (3 - len(numbers)) + tuple(numbers)
            if len(numbers) != dimensions or any(i >= n for i, n in zip(index, sides, strict=True)):
                continue
            if self._keys(tuple(numbers)) == name:
                status = entry.stat()
                found[index[0], index[1], index[2]] = (status.st_size, status.st_mtime_ns)
        return found


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.isdecimal():
                        yield from _files(Path(entry.path))
                else:
                    yield entry
    except (FileNotFoundError, NotADirectoryError):
        return


def _made(folder: Path) -> list[Path]:
    """Create a folder and those around it, and return the new ones."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _each(function: Callable[[Any], None], values: Iterable[Any]) -> None:
    """Call a function with each value, in threads if they are many: they wait for the disk together."""
    every = list(values)
    if len(every) <= 2:
        for value in every:
            function(value)
        return
    with ThreadPoolExecutor(_THREADS, "hrvol-strokes") as pool:
        try:
            pool.submit(len, ()).result()
        except RuntimeError:  # the interpreter ends, and starts no more threads
            for value in every:
                function(value)
            return
        list(pool.map(function, every))
