"""Read strokes that are drawn now, saved or not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.volume.drawing_store.change import ChangeLog
from hrvol.volume.drawing_store.checks import Where, checked_box, checked_places
from hrvol.volume.drawing_store.chunk_files import ChunkFiles
from hrvol.volume.drawing_store.chunks import Chunks
from hrvol.volume.drawing_store.layout import Layout
from hrvol.volume.drawing_store.recovery import load_chunks
from hrvol.volume.grid.tiling import Box
from hrvol.volume.strokes.merge import StrokeCounts
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.volume import Volume


class OpenStrokes:
    """What readers of open strokes see; any thread may call it.

    Parameters
    ----------
    layout
        Where the strokes are stored.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.RLock()  # held for moments
        self._files = ChunkFiles(layout)
        self._chunks = Chunks(layout, self._files)
        self._table = layout.table
        self._log, self._version = ChangeLog(layout.shape), 0
        load_chunks(layout, self._files, self._chunks)

    @property
    def source(self) -> str:
        """Path of the labels, for messages and for what is trained on them."""
        return self._layout.source

    @property
    def labels(self) -> Volume:
        """The labels as other programs read them: what is saved, and voxel size, unit and position."""
        return self._layout.labels

    @property
    def shape(self) -> Shape3:
        """Voxels of the volume (z, y, x)."""
        return self._layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._layout.labels.dtype

    @property
    def ndim(self) -> int:
        """2 for strokes on an image, else 3."""
        return self._layout.labels.ndim

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
