"""Tell whether the files of an input were replaced or rewritten while they are in use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import zarr

from hrvol.volume.chunk_cache import Index
from hrvol.volume.grid.tiling import Box
from hrvol.volume.storage.input_store import InputStore
from hrvol.volume.storage.stamps import MISSING, Stamp, metadata_stamps, stamp_of
from hrvol.volume.volume import Volume

_NS = 1000
"""Nanoseconds of a time that file systems in a network keep."""


@dataclass(frozen=True)
class InputState:
    """The files that a box of a volume is read from, as they are now.

    Attributes
    ----------
    files
        Path -> stamp; empty if unknown, as in buckets and in memory.
    chunks
        Number of chunks per file along each axis of the stored array; empty if all are in one file.
    by_index
        Index in the grid of files -> stamp.
    root
        Folder of the volume, which does not count in :meth:`digest`.
    """

    files: Mapping[str, Stamp] = field(default_factory=dict)
    chunks: tuple[int, ...] = ()
    by_index: Mapping[Index, Stamp] = field(default_factory=dict)
    root: str = ""

    def version(self, index: Index) -> Stamp:
        """Return the stamp of the file that holds a chunk."""
        if not self.chunks:
            return MISSING
        return self.by_index.get(tuple(map(int.__floordiv__, index, self.chunks)), MISSING)

    def digest(self) -> int:
        """Return a number that identifies the state of all files; 0 if they are unknown.

        Processes on different machines get the same: file systems in a network differ in the numbers of files
        and round times.
        """
        if not self.files:
            return 0
        states = sorted(
            (path.removeprefix(self.root), size, when // _NS) for path, (size, when, _) in self.files.items()
        )
        text = repr(states).encode(errors="surrogateescape")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") or 1


def changed_files(volume: Volume, before: InputState, after: InputState) -> list[str]:
    """Return the files of a box that differ between two states, or from what they were when opened."""
    changed = [path for path, stamp in before.files.items() if after.files.get(path) != stamp]
    # What was opened once is still that, whatever is there now.
    opened = volume.opened if before.files else ()
    return changed + [path for path, stamp in opened if before.files.get(path) != stamp]


def input_state(volume: Volume, box: Box) -> InputState:
    """Return the state of the files that a box (z, y, x) of a volume is read from."""
    array = volume.array
    if volume.opened and not isinstance(getattr(array, "store", None), InputStore):
        folder = os.path.dirname(volume.opened[0][0])
        planes = getattr(array, "files", None)
        # Of a stack in thousands of files only those of the box are looked at.
        read: set[str] | None = None
        if planes is not None and volume.axes[0]:
            read = set(planes[box["zyx".index(volume.axes[0])]])
        files = {
            path: stamp_of(path) if read is None or path in read else stamp for path, stamp in volume.opened
        }
        return InputState(files, root=folder)
    if volume.origin is None or not isinstance(array, zarr.Array) or not isinstance(array.store, InputStore):
        return InputState()
    root = str(array.store.root / array.store_path.path)
    sides = array.shards or array.chunks
    spans = dict(zip("zyx", box, strict=True))
    rows = [
        range(spans[axis].start // side, -(-spans[axis].stop // side))
        if axis
        else _channels(volume, length, side)
        for axis, side, length in zip(volume.axes, sides, array.shape, strict=True)
    ]
    metadata = array.metadata
    by_index: dict[Index, Stamp] = {}
    files = dict(metadata_stamps(root))
    for index in product(*rows):
        path = f"{root}/{metadata.encode_chunk_key(index)}"
        files[path] = by_index[index] = stamp_of(path)
    chunks = tuple(side // chunk for side, chunk in zip(sides, array.chunks, strict=True))
    return InputState(files, chunks, by_index, root)


def _channels(volume: Volume, length: int, side: int) -> range:
    """Return the rows of files along an axis that is not of space."""
    if volume.channel == "mean":
        return range(-(-length // side))
    if volume.colour and length > 1:
        return range(-(-volume.channels // side))
    first = volume.channel // side if length > 1 and isinstance(volume.channel, int) else 0
    return range(first, first + 1)
