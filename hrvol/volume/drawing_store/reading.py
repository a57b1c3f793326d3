"""Read strokes that are drawn now, saved or not."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.volume.drawing_store.change import ChangeLog
from hrvol.volume.drawing_store.checks import Where, checked_box, checked_places
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid, ChunkReader
from hrvol.volume.drawing_store.chunks import Chunks
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.piece import Piece, pieces
from hrvol.volume.grid.tiling import Box
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.stroke_counts import StrokeCounts


class OpenStrokes:
    """What readers of open strokes see; any thread may call it.

    Parameters
    ----------
    grid
        Shape and type of the strokes.
    table
        Their classes.
    reader
        Where chunks are read from.
    """

    def __init__(self, grid: ChunkGrid, table: ClassTable, reader: ChunkReader) -> None:
        self._grid = grid
        self._lock = threading.RLock()  # held for moments
        self._chunks = Chunks(grid, reader)
        self._table = table
        self._log, self._version = ChangeLog(grid.shape), 0

    @property
    def source(self) -> str:
        """Path of the labels, for messages and for what is trained on them."""
        return self._grid.source

    @property
    def grid(self) -> ChunkGrid:
        """Shape, type and chunks."""
        return self._grid

    @property
    def table(self) -> ClassTable:
        """Classes, and the value of the next one."""
        return self._table

    @property
    def shape(self) -> Shape3:
        """Voxels of the volume (z, y, x)."""
        return self._grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._grid.dtype

    @property
    def ndim(self) -> int:
        """2 for strokes on an image, else 3."""
        return self._grid.ndim

    @property
    def version(self) -> int:
        """Number of changes since the store was opened."""
        return self._version

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes in order of value."""
        return self._table.classes

    def read(self, box: Box) -> NDArray[Any]:
        """Return the class values ``(z, y, x)`` of a box; :class:`StrokesError` outside of the volume."""
        with self._lock:
            return self._chunks.read(checked_box(box, self.shape, self.source))

    def read_places(self, where: Where) -> NDArray[Any]:
        """Return the class values of voxels, given as index arrays ``(z, y, x)`` that are broadcast."""
        places = checked_places(where, self.shape, self.source)
        with self._lock:
            return self._chunks.at(places.reshape(-1, 3)).reshape(places.shape[:-1])

    def counts(self) -> StrokeCounts:
        """Return the drawn voxels of each class and plane; nothing is read."""
        with self._lock:
            planes = {v: dict(sorted(of.items())) for v, of in sorted(self._chunks.planes.items())}
            return StrokeCounts(planes, tuple(self._table.info(value) for value in planes))

    def changed_since(self, version: int) -> tuple[Box, ...]:
        """Return boxes that hold all voxels changed after a version."""
        with self._lock:
            return self._log.since(version, self._version)

    def points(self, planes: Sequence[int] | None = None) -> Painted:
        """Return the drawn voxels of some planes, or of all, in order of z, y, x."""
        chosen = None if planes is None else np.unique(np.asarray(planes, np.int64))
        with self._lock:
            found = self._chunks.in_planes(chosen)
        for index in found:  # one by one, so that nobody who paints waits for all that has to be read
            with self._lock:
                self._chunks.points_of(index)
        with self._lock:
            points = [(index, self._chunks.points_of(index)) for index in self._chunks.in_planes(chosen)]
        return self._chunks.painted(points, chosen)

    def boxes(self) -> tuple[Box, ...]:
        """Return boxes that hold all that is drawn, without overlap, in order."""
        with self._lock:
            return tuple(self._chunks.box_of(index) for index in sorted(self._chunks.counts))

    def piece_after(self, index: Shape3 | None = None) -> Piece | None:
        """Return what is drawn, as a change of an empty volume, in the chunks that follow one, in order.

        A piece has a limited size: for more call this again with the last chunk of the piece. ``None``:
        nothing more is drawn.
        """
        with self._lock:
            every = sorted(self._chunks.counts)
            rest = every[0 if index is None else bisect_right(every, index) :]
            return next(pieces(self._chunks.drawn_patches(rest)), None)
