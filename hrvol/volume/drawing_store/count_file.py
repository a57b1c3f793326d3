"""Keep the counts of chunks in a file, so that opening strokes does not decode all of them.

The file is a cache: counts of a chunk are used only if its file has the size and the time of then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.files import atomic_write
from hrvol.reading.bounded import parse_array, read_file
from hrvol.volume.drawing_store.chunk_files import ChunkFiles, FileStamp
from hrvol.volume.drawing_store.chunks import Counts

_NAME = "counts.npy"

_BYTES = 2**29

_COLUMNS = 8  # z, y, x of the chunk; size, time of its file; plane, value, voxels


def write_counts(folder: Path, files: ChunkFiles, chunks: Mapping[Shape3, Counts]) -> None:
    """Write the counts of saved chunks; :class:`OSError` if the disk is full."""
    rows = [
        (*index, *stamp, plane, value, count)
        for index, counts in chunks.items()
        if (stamp := files.stamp(index)) is not None
        for (plane, value), count in counts.items()
    ]
    with atomic_write(folder / _NAME) as partial:
        np.save(partial, np.array(rows, np.int64).reshape(-1, _COLUMNS), allow_pickle=False)


def read_counts(folder: Path) -> dict[Shape3, tuple[FileStamp, Counts]]:
    """Return the counts of chunks; none if the file is missing or damaged."""
    path = folder / _NAME
    if not path.is_file():
        return {}
    try:
        rows = parse_array(read_file(path, _BYTES, "counts of strokes"), str(path))
    except InputError:
        return {}
    if rows.dtype != np.int64 or rows.ndim != 2 or rows.shape[1] != _COLUMNS:
        return {}
    if len(rows) and (rows.min() < 0 or rows[:, 6:].min() < 1 or rows[:, 6].max() >= 2**16):
        return {}
    chunks: dict[Shape3, tuple[FileStamp, Counts]] = {}
    for z, y, x, size, time, plane, value, count in rows.tolist():
        chunks.setdefault((z, y, x), ((size, time), {}))[1][plane, value] = count
    return chunks
