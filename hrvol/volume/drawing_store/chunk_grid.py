"""Describe strokes that are kept in chunks, wherever these are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.volume.drawing_store.piece import Piece


@dataclass(frozen=True)
class ChunkGrid:
    """Shape, type and chunks of strokes.

    Attributes
    ----------
    source
        Name for messages.
    shape
        Voxels of the volume (z, y, x).
    chunk
        Voxels of a chunk (z, y, x).
    dtype
        Type of the values.
    ndim
        2 for strokes on an image, else 3.
    """

    source: str
    shape: Shape3
    chunk: Shape3
    dtype: np.dtype[Any]
    ndim: int

    @property
    def counts(self) -> Shape3:
        """Number of chunks (z, y, x)."""
        z, y, x = (-(-n // side) for n, side in zip(self.shape, self.chunk, strict=True))
        return z, y, x

    @property
    def highest(self) -> int:
        """Highest value that the type holds."""
        return int(np.iinfo(self.dtype).max)

    def fits(self, piece: Piece) -> bool:
        """Whether all voxels of a piece are in the volume, each once, and all values have the type."""
        if not len(piece.places) or (piece.counts < 1).any() or (piece.chunks >= self.counts).any():
            return False
        if (
            int(piece.places.max()) >= int(np.prod(self.chunk))
            or max(piece.before.max(), piece.after.max()) > self.highest
        ):
            return False
        rises = np.append(True, piece.places[1:] > piece.places[:-1])
        rises[np.cumsum(piece.counts)[:-1]] = True  # a chunk begins
        local = np.stack(np.unravel_index(piece.places, self.chunk), axis=1)
        voxels = np.repeat(piece.chunks, piece.counts, axis=0) * self.chunk + local
        return bool(rises.all() and (voxels < self.shape).all())


class ChunkReader(Protocol):
    """Where chunks are read from that are not in memory."""

    def read(self, index: Shape3) -> NDArray[Any]:
        """Return a chunk of the full shape, 0 beyond the volume; :class:`InputError` if it is damaged."""
