"""Strokes in an array in memory: for small volumes, notebooks and tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import StrokesError
from hrvol.volume.grid.tiling import Box
from hrvol.volume.strokes.painted import Painted


class ArrayDrawing:
    """Strokes in an array, painted box by box; see :class:`hrvol.interactive.drawing.Drawing`.

    Parameters
    ----------
    labels
        ``(Z, Y, X)`` class values, 0 where nothing is drawn; copied.
    classes
        Names and colours of the classes.
    source
        Name of the strokes, which models record.

    Raises
    ------
    StrokesError
        Labels are not three-dimensional integers.
    """

    def __init__(
        self, labels: NDArray[Any], classes: Sequence[ClassInfo] = (), source: str = "strokes"
    ) -> None:
        self._labels = np.array(labels)
        if self._labels.ndim != 3 or self._labels.dtype.kind not in "iu":
            raise StrokesError(
                f"{source}: found {self._labels.ndim}-D strokes of {self._labels.dtype},"
                " expected 3-D integers"
            )
        self.classes, self.source, self.version = tuple(classes), source, 0
        self._changes: list[tuple[int, Box]] = []
        self._functions: list[Callable[[int], None]] = []
        self._lock = threading.Lock()

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x) of the volume."""
        z, y, x = self._labels.shape
        return z, y, x

    def paint(self, box: Box, values: Any) -> None:
        """Set the class values of a box: one, or ``(z, y, x)``; 0 erases."""
        with self._lock:
            self._labels[box] = values
            self.version += 1
            self._changes.append((self.version, box))
            functions = list(self._functions)
        for function in functions:
            function(self.version)

    def points(self, planes: Sequence[int] | None = None) -> Painted:
        """Return the drawn voxels of some planes, or of all."""
        with self._lock:
            chosen = range(self.shape[0]) if planes is None else planes
            places = [np.argwhere(self._labels[z]) for z in chosen]
            values = [self._labels[z][tuple(where.T)] for z, where in zip(chosen, places, strict=True)]
        zyx = [np.insert(where, 0, z, axis=1) for z, where in zip(chosen, places, strict=True)]
        if not zyx:
            return Painted.of(np.empty((0, 3)), np.empty(0))
        return Painted.of(np.concatenate(zyx), np.concatenate(values))

    def changed_since(self, version: int) -> tuple[Box, ...]:
        """Return the boxes that were painted after a version."""
        with self._lock:
            return tuple(box for number, box in self._changes if number > version)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the class values ``(z, y, x)`` of a box."""
        with self._lock:
            return np.array(self._labels[box])

    def subscribe(self, function: Callable[[int], None]) -> Callable[[], None]:
        """Call a function with each new version, until the function that is returned is called."""
        with self._lock:
            self._functions.append(function)

        def forget() -> None:
            with self._lock:
                if function in self._functions:
                    self._functions.remove(function)

        return forget
