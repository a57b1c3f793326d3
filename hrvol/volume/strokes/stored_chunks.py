"""List the chunks of a Zarr array that are stored, so that of sparse strokes only these are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.metadata import ArrayV2Metadata
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from hrvol.errors import UnreadableError, one_line
from hrvol.volume.chunk_cache import chunk_runs
from hrvol.volume.storage.remote import RemoteStore
from hrvol.volume.volume import Volume

MOST_LISTED = 2**22
"""Most keys to list: an array with more of them is not sparse."""

_LISTED = (FsspecStore, MemoryStore, ZipStore)
"""Stores, besides local folders, whose lists are complete: stores of TIFF files list nothing."""

_RUN = 2**24  # voxels of the chunks that are read at once


def stored_boxes(volume: Volume) -> NDArray[np.int64] | None:
    """Return the boxes of a volume that are stored, in its own voxels.

    Parameters
    ----------
    volume
        Any volume.

    Returns
    -------
    numpy.ndarray or None
        ``(n, 3, 2)`` starts and stops along z, y and x, without overlap, of boxes of whole chunks (shards
        where there are such). ``None`` if that is unknown, if more than half of them are stored, or if chunks
        that are not stored hold another value than 0.

    Raises
    ------
    UnreadableError
        The keys cannot be listed.
    """
    array = volume.array
    if not isinstance(array, zarr.Array) or array.fill_value:
        return None
    chunks = array.shards or array.chunks
    counts = [-(-length // side) for length, side in zip(array.shape, chunks, strict=True)]
    try:
        indices = _stored_indices(array, counts)
    except OSError as error:
        raise UnreadableError(f"{volume.source}: cannot list the stored chunks: {one_line(error)}") from error
    if indices is None or 2 * len(indices) > math.prod(counts):
        return None
    most = max(1, _RUN // math.prod(chunks))
    boxes = [
        [
            (run[axis].start * chunks[axis], min(run[axis].stop * chunks[axis], array.shape[axis]))
            for axis in range(array.ndim)
        ]
        for run in chunk_runs(indices, most)
    ]
    bounds = np.array(boxes, np.int64).reshape(-1, array.ndim, 2)
    found = np.zeros((len(bounds), 3, 2), np.int64)
    found[:, :, 1] = 1  # of an image without z
    for number, axis in enumerate(volume.axes):
        if axis:
            found[:, "zyx".index(axis)] = bounds[:, number]
    return found[np.lexsort(found[:, ::-1, 0].T)]


def _stored_indices(array: zarr.Array[Any], counts: list[int]) -> set[tuple[int, ...]] | None:
    """Return the indices of the stored chunks; ``None`` if they cannot be listed, or are too many."""
    metadata = array.metadata
    separator: str | None
    if isinstance(metadata, ArrayV2Metadata):
        separator, lead = metadata.dimension_separator, ""
    else:
        encoding: Any = metadata.chunk_key_encoding
        separator = getattr(encoding, "separator", None)
        lead = f"c{separator}" if encoding.name == "default" else ""
    if separator not in ("/", "."):
        return None
    root = array.path.strip("/")
    found: set[tuple[int, ...]] = set()
    keys = _keys(array.store, root, lead, separator, array.ndim)
    if keys is None:
        return None
    try:
        for key in keys:
            parts = key.removeprefix(lead).split(separator)
            if not key.startswith(lead) or len(parts) != array.ndim:
                continue
            if all(part.isdecimal() and len(part) < 12 for part in parts):
                index = tuple(int(part) for part in parts)
                if all(i < count for i, count in zip(index, counts, strict=True)):
                    found.add(index)
            if len(found) > MOST_LISTED:
                return None
    except _Odd:
        return None
    first = next(iter(found), None)
    if first is not None and metadata.encode_chunk_key(first) != lead + separator.join(map(str, first)):
        return None  # an encoding that this module does not know
    return found


class _Odd(Exception):
    """A folder of chunks is no folder: reading it reports what it is."""


def _keys(store: Store, root: str, lead: str, separator: str, axes: int) -> Iterator[str] | None:
    """Return the keys of an array's chunks, relative to it."""
    if isinstance(store, LocalStore):
        start = store.root / root if root else store.root
        if lead == "c/":
            start /= "c"
        return _local(start, "c/" if lead == "c/" else "", axes if separator == "/" else 1)
    if not isinstance(store, _LISTED) or not store.supports_listing:
        return None
    prefix = f"{root}/" if root else ""

    async def listed() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    if isinstance(store, RemoteStore):
        with store._translated():
            keys = sync(listed())
    else:
        keys = sync(listed())
    return (key.removeprefix(prefix) for key in keys)


def _local(folder: Path, before: str, depth: int) -> Iterator[str]:
    """Yield the keys below a folder: names at the given depth, whatever they are. Links are followed."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        if os.path.lexists(folder):
            raise _Odd from None
        return
    except NotADirectoryError:
        raise _Odd from None
    with entries:
        for entry in entries:
            if depth == 1:
                yield before + entry.name
            elif entry.name.isdecimal():
                yield from _local(Path(entry.path), f"{before}{entry.name}/", depth - 1)
