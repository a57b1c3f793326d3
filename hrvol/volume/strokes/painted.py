"""Drawn voxels as a list, for strokes that are few compared with their volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import StrokesError
from hrvol.volume.grid.tiling import Box, box_shape

MOST_PAINTED = 2**28
"""Most voxels of a list: 26 bytes each."""

CELL = (64, 512, 512)
"""Voxels (z, y, x) of the cells whose drawn voxels are read at once."""


@dataclass(frozen=True, eq=False)
class Painted:
    """Drawn voxels in order of z, y, x, each once.

    Attributes
    ----------
    places
        ``(n, 3)`` int64: z, y, x in the volume.
    values
        ``(n,)`` uint16 class values of at least 1.
    """

    places: NDArray[np.int64]
    values: NDArray[np.uint16]

    @classmethod
    def of(cls, places: NDArray[Any], values: NDArray[Any]) -> Painted:
        """Return voxels in order; where one is drawn several times, the last value counts.

        Parameters
        ----------
        places
            ``(n, 3)`` integers: z, y, x.
        values
            ``(n,)`` class values from 0; voxels of value 0 are erased.
        """
        where = np.asarray(places, np.int64).reshape(-1, 3)
        if len(where) == 0:
            return cls(where, np.empty(0, np.uint16))
        order = np.lexsort((where[:, 2], where[:, 1], where[:, 0]))  # stable: the last drawn stays last
        where, drawn = where[order], np.asarray(values)[order].astype(np.uint16)
        last = np.append((np.diff(where, axis=0) != 0).any(axis=1), True) & (drawn > 0)
        return cls(np.ascontiguousarray(where[last]), drawn[last])

    def __len__(self) -> int:
        return len(self.values)

    def inside(self, box: Box) -> NDArray[np.intp]:
        """Return the indices of the voxels inside a box."""
        z, y, x = box
        start, stop = np.searchsorted(self.places[:, 0], [z.start, z.stop])
        rows, columns = self.places[start:stop, 1], self.places[start:stop, 2]
        kept = (rows >= y.start) & (rows < y.stop) & (columns >= x.start) & (columns < x.stop)
        return np.flatnonzero(kept) + int(start)

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Return a box of class values ``(z, y, x)``, 0 where nothing is drawn."""
        labels = np.zeros(box_shape(box), np.uint16)
        chosen = self.inside(box)
        where = self.places[chosen] - [span.start for span in box]
        labels[tuple(where.T)] = self.values[chosen]
        return labels

    def boxes(self) -> NDArray[np.int64]:
        """Return the smallest boxes ``(n, 3, 2)``, starts and stops, around the voxels of each cell."""
        if not len(self):
            return np.empty((0, 3, 2), np.int64)
        cells = self.places // CELL
        order = np.lexsort(cells.T[::-1])
        cells, places = cells[order], self.places[order]
        first = np.flatnonzero(np.append(True, (np.diff(cells, axis=0) != 0).any(axis=1)))
        low = np.minimum.reduceat(places, first, axis=0)
        return np.stack([low, np.maximum.reduceat(places, first, axis=0) + 1], axis=2)


class Canvas:
    """Collects drawn pixels plane by plane, in the order of drawing.

    Parameters
    ----------
    source
        Name for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._parts: list[tuple[NDArray[np.int64], int]] = []
        self._count = 0

    def add(self, z: int, pixels: NDArray[Any], value: int) -> None:
        """Draw pixels ``(n, 2)``, rows and columns, of a plane with a class value."""
        self._count += len(pixels)
        if self._count > MOST_PAINTED:
            raise StrokesError(
                f"{self._source}: found more than {MOST_PAINTED:,} drawn pixels, expected fewer"
            )
        places = np.empty((len(pixels), 3), np.int64)
        places[:, 0], places[:, 1:] = z, pixels
        self._parts.append((places, value))

    def painted(self) -> Painted:
        """Return what is drawn; later strokes cover earlier ones."""
        return joined(self._parts)


def joined(parts: Sequence[tuple[NDArray[np.int64], int]]) -> Painted:
    """Return several lists of places, each of one value, as one."""
    if not parts:
        return Painted.of(np.empty((0, 3)), np.empty(0))
    values = np.concatenate([np.full(len(places), value, np.uint16) for places, value in parts])
    return Painted.of(np.concatenate([places for places, _ in parts]), values)


def as_boxes(bounds: NDArray[np.int64]) -> Iterator[Box]:
    """Yield boxes ``(n, 3, 2)`` of starts and stops as slices."""
    for (z0, z1), (y0, y1), (x0, x1) in bounds.tolist():
        yield slice(z0, z1), slice(y0, y1), slice(x0, x1)
