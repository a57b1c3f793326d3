"""Changed voxels of some chunks, with their values before and after, and their bytes.

The same bytes are what the journal stores and what undo keeps in memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.volume.storage.declared_size import check_size

MOST_VOXELS = 2**22
"""Voxels after which another piece begins."""

MOST_BYTES = 2**28
"""Most bytes of a piece before compression."""

_HEAD = struct.Struct("<II")

Patch = tuple[Shape3, NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint16]]
"""Index of a chunk; places in it in C order, each once; values before and after."""


@dataclass(frozen=True, eq=False)
class Piece:
    """Changed voxels.

    Attributes
    ----------
    chunks
        ``(n, 3)`` int64 indices of chunks.
    counts
        ``(n,)`` int64 voxels of each of them.
    places
        ``(N,)`` uint32 places in the chunks, in C order.
    before, after
        ``(N,)`` uint16 values.
    """

    chunks: NDArray[np.int64]
    counts: NDArray[np.int64]
    places: NDArray[np.uint32]
    before: NDArray[np.uint16]
    after: NDArray[np.uint16]

    def encode(self) -> bytes:
        """Return the piece as compressed bytes."""
        table = np.column_stack([self.chunks, self.counts]).astype("<u4")
        steps = np.diff(self.places, prepend=np.uint32(0)).astype("<u4")  # modulo 2^32
        parts = (table, steps, self.before.astype("<u2"), self.after.astype("<u2"))
        head = _HEAD.pack(len(self.chunks), len(self.places))
        encoded: bytes = zstd.compress(head + b"".join(part.tobytes() for part in parts), 1)
        return encoded

    def patches(self, back: bool = False) -> Iterator[Patch]:
        """Yield the voxels of each chunk; with ``back``, what undoes them."""
        before, after = (self.after, self.before) if back else (self.before, self.after)
        stops = np.cumsum(self.counts)
        for (z, y, x), start, stop in zip(self.chunks.tolist(), stops - self.counts, stops, strict=True):
            yield (z, y, x), self.places[start:stop], before[start:stop], after[start:stop]


def decode(data: bytes) -> Piece:
    """Return the piece of compressed bytes.

    Raises
    ------
    ValueError
        They are damaged. Whether places are inside of the volume is not checked.
    """
    check_size("zstd", memoryview(data), MOST_BYTES)
    try:
        plain: bytes = zstd.decompress(data)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if len(plain) < _HEAD.size:
        raise ValueError("found no head of a piece")
    n, voxels = _HEAD.unpack_from(plain)
    if len(plain) != _HEAD.size + 16 * n + 8 * voxels:
        raise ValueError(f"found {len(plain)} bytes in a piece of {n} chunks and {voxels} voxels")
    at = _HEAD.size + 16 * n
    table = np.frombuffer(plain, "<u4", 4 * n, _HEAD.size).reshape(n, 4).astype(np.int64)
    steps = np.frombuffer(plain, "<u4", voxels, at)
    before = np.frombuffer(plain, "<u2", voxels, at + 4 * voxels)
    after = np.frombuffer(plain, "<u2", voxels, at + 6 * voxels)
    if table[:, 3].sum() != voxels:
        raise ValueError("found other numbers of voxels than in the table of a piece")
    return Piece(table[:, :3], table[:, 3], np.cumsum(steps, dtype=np.uint32), before, after)


def pieces(patches: Iterable[Patch]) -> Iterator[Piece]:
    """Yield patches of different chunks as pieces of limited size; those without voxels are left out."""
    held: list[Patch] = []
    voxels = 0
    for patch in patches:
        if not len(patch[1]):
            continue
        if held and voxels + len(patch[1]) > MOST_VOXELS:
            yield _joined(held)
            held, voxels = [], 0
        held.append(patch)
        voxels += len(patch[1])
    if held:
        yield _joined(held)


def _joined(patches: list[Patch]) -> Piece:
    return Piece(
        np.array([patch[0] for patch in patches], np.int64),
        np.array([len(patch[1]) for patch in patches], np.int64),
        *(np.concatenate([patch[i] for patch in patches]) for i in (1, 2, 3)),
    )
