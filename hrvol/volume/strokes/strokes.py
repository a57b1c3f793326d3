"""Strokes on a volume, wherever they are from: what training reads.

They are either an array of the volume's shape or a crop of it, of which only stored chunks are read, or a
list of drawn voxels. All of them answer the same questions in voxels of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import StrokesError
from hrvol.volume.grid.tiling import Box, box_shape, grid, intersection
from hrvol.volume.strokes.painted import Painted, as_boxes
from hrvol.volume.volume import Volume

SCAN = (64, 512, 512)
"""Voxels of an array read at once, at most, per axis (z, y, x), unless its chunks are larger."""

MOST_VOXELS = 2**42
"""Most voxels of strokes that are read."""

_PIECE = 2**26  # voxels read at once where chunks are whole planes


@dataclass(frozen=True, eq=False)
class Strokes:
    """Class values drawn on a volume; 0 where nothing is drawn.

    Attributes
    ----------
    source
        Name for messages.
    shape
        Voxels (z, y, x) of the volume that they are drawn on.
    array
        Class values in an array, or ``None``.
    offset
        First voxel (z, y, x) of the array in the volume.
    parts
        ``(n, 3, 2)`` int64: starts and stops, in the volume, of the boxes that may hold drawn voxels, without
        overlap; ``None``: anywhere in the array.
    painted
        Drawn voxels instead of an array.
    classes
        Names and colours of the classes, ``None`` if the source has none.
    """

    source: str
    shape: Shape3
    array: Volume | None = None
    offset: Shape3 = (0, 0, 0)
    parts: NDArray[np.int64] | None = None
    painted: Painted | None = None
    classes: tuple[ClassInfo, ...] | None = None

    def __post_init__(self) -> None:
        if self.array is None and self.painted is None:
            raise ValueError("strokes: found neither an array nor drawn voxels")

    @property
    def dense(self) -> bool:
        """Whether the strokes are an array, any voxel of which may be drawn."""
        return self.painted is None and self.parts is None

    def check_size(self) -> None:
        """Raise a :class:`StrokesError` if there are too many voxels to read."""
        if (count := self.voxels) > MOST_VOXELS:
            raise StrokesError(
                f"{self.source}: found strokes of shape {self.shape}, {count:.3g} voxels of which are read,"
                f" expected at most {MOST_VOXELS:.1e}: crop the volume to what is drawn on"
            )

    @property
    def box(self) -> Box:
        """The box of the volume outside of which nothing is drawn."""
        if self.array is None:
            z, y, x = (slice(0, length) for length in self.shape)
        else:
            z, y, x = (slice(a, a + n) for a, n in zip(self.offset, self.array.shape, strict=True))
        return z, y, x

    @property
    def voxels(self) -> int:
        """Number of voxels that may be drawn, all of which are read."""
        if self.painted is not None:
            return len(self.painted)
        if self.parts is None:
            return math.prod(box_shape(self.box))
        return int(np.prod(self.parts[:, :, 1] - self.parts[:, :, 0], axis=1).sum())

    def boxes(self) -> Iterator[Box]:
        """Yield boxes that hold all drawn voxels, without overlap."""
        if self.painted is not None:
            yield from as_boxes(self.painted.boxes())
            return
        assert self.array is not None
        for box in [self.box] if self.parts is None else as_boxes(self.parts):
            origin = [span.start for span in box]
            for piece in grid(box_shape(box), scan_shape(box_shape(box), self.array.chunks)):
                z, y, x = (slice(a + s.start, a + s.stop) for a, s in zip(origin, piece.core, strict=True))
                yield z, y, x

    def drawn(self) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Yield the boxes with drawn voxels, and their class values ``(z, y, x)``, one at a time."""
        for box in self.boxes():
            labels = self._stored(box)
            if labels.any():
                yield box, labels

    def read(self, box: Box) -> NDArray[Any]:
        """Return the class values ``(z, y, x)`` of a box of the volume; boxes without any are not read."""
        if self.painted is not None:
            return self.painted.read(box)
        assert self.array is not None
        shared = intersection(box, self.box)
        if self.parts is None and shared == box:
            return self._stored(box)
        labels = np.zeros(box_shape(box), self.array.dtype)
        near = [] if shared is None else [shared] if self.parts is None else as_boxes(self._near(box))
        for part in near:
            inside = intersection(part, box)
            if inside is not None:
                z, y, x = (
                    slice(s.start - b.start, s.stop - b.start) for s, b in zip(inside, box, strict=True)
                )
                labels[z, y, x] = self._stored(inside)
        return labels

    def touches(self, box: Box) -> bool:
        """Return whether a box of the volume may hold drawn voxels; reads nothing."""
        if self.painted is not None:
            return bool(len(self.painted.places[self.painted.inside(box)]))
        if self.parts is not None:
            return bool(len(self._near(box)))
        return intersection(box, self.box) is not None

    def planes(self) -> list[int]:
        """Return the planes that may hold drawn voxels, in order."""
        if self.painted is not None:
            return [int(z) for z in np.unique(self.painted.places[:, 0])]
        if self.parts is None:
            return list(range(self.box[0].start, self.box[0].stop))
        found = np.zeros(self.shape[0] + 1, np.int64)
        np.add.at(found, self.parts[:, 0, 0], 1)
        np.add.at(found, self.parts[:, 0, 1], -1)
        return [int(z) for z in np.flatnonzero(np.cumsum(found)[:-1])]

    def _near(self, box: Box) -> NDArray[np.int64]:
        assert self.parts is not None
        low, high = [span.start for span in box], [span.stop for span in box]
        return self.parts[((self.parts[:, :, 0] < high) & (self.parts[:, :, 1] > low)).all(axis=1)]

    def _stored(self, box: Box) -> NDArray[Any]:
        if self.painted is not None:
            return self.painted.read(box)
        assert self.array is not None
        z, y, x = (slice(s.start - a, s.stop - a) for s, a in zip(box, self.offset, strict=True))
        return self.array.read((z, y, x))


def scan_shape(shape: Shape3, chunks: Shape3) -> Shape3:
    """Return the shape of the pieces in which an array is read: whole chunks, so that each is decoded once.

    Arrays in memory, and chunks too large to be read at once, are read in pieces of :data:`SCAN`.
    """
    if chunks == shape:
        z, y, x = (min(a, n) for a, n in zip(SCAN, shape, strict=True))
        return z, y, x
    whole = [min(n, -(-max(a, c) // c) * c) for a, c, n in zip(SCAN, chunks, shape, strict=True)]
    depth = min(shape[0], chunks[0])
    if math.prod(whole) > _PIECE:
        whole[0] = max(depth, min(whole[0], _PIECE // (whole[1] * whole[2]) // depth * depth))
    if math.prod(whole) > _PIECE:
        whole = [min(a, n) for a, n in zip(SCAN, shape, strict=True)]
    return whole[0], whole[1], whole[2]
