"""What a session needs of the strokes that a user draws."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import StrokesError
from hrvol.segment.strokes import StrokePixels, choose_listed
from hrvol.volume.grid.tiling import Box
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.strokes.strokes import Strokes


class Drawing(Protocol):
    """Strokes on a volume that change while they are read.

    A drawing may also have ``source``, the name that training records for its strokes: of a store on disk its
    path, as :func:`hrvol.volume.strokes.open_strokes.open_strokes` names it.
    """

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x) of the volume."""
        ...

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        ...

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Names and colours of the classes, drawn or not."""
        ...

    def points(self, planes: Sequence[int] | None = None) -> Painted:
        """Return the drawn voxels of some planes, or of all."""
        ...

    def changed_since(self, version: int) -> tuple[Box, ...]:
        """Return boxes that hold all voxels that were changed after a version."""
        ...

    def read(self, box: Box) -> NDArray[Any]:
        """Return the class values ``(z, y, x)`` of a box, 0 where nothing is drawn."""
        ...


@dataclass(frozen=True, eq=False)
class Drawn:
    """The strokes of one version.

    Attributes
    ----------
    version
        Of the drawing.
    painted
        Drawn voxels.
    classes
        Names and colours of the classes, drawn or not.
    source
        Name of the strokes.
    shape
        Voxels (z, y, x) of the volume.
    """

    version: int
    painted: Painted
    classes: tuple[ClassInfo, ...]
    source: str
    shape: Shape3

    @property
    def values(self) -> tuple[int, ...]:
        """Class values that are drawn, in order."""
        return tuple(int(value) for value in np.unique(self.painted.values))

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Drawn voxels ``(n, 4)``: image (0), z, y, x."""
        where = np.zeros((len(self.painted), 4), np.int64)
        where[:, 1:] = self.painted.places
        return where

    def infos(self) -> tuple[ClassInfo, ...]:
        """Return the classes that are drawn, named by the drawing or by their number."""
        from hrvol.training.strokes import name_classes

        return name_classes(self.values, None, [self.strokes()])

    def strokes(self) -> Strokes:
        """Return the strokes as training reads them."""
        return Strokes(self.source, self.shape, painted=self.painted, classes=self.classes or None)

    def choose(self, per_class: int | None, seed: int) -> StrokePixels:
        """Choose pixels to train on, as :func:`hrvol.segment.strokes.choose_pixels` does."""
        return choose_listed(self.pixels, self.painted.values, per_class, seed)

    def check(self) -> None:
        """Raise a :class:`StrokesError` unless at least two classes are drawn."""
        if len(self.values) < 2:
            raise StrokesError(
                f"{self.source}: found {len(self.values)} classes drawn, expected strokes of at least two"
            )


class DrawnStrokes:
    """Keeps what is drawn, and reads only the planes that were changed since the last time.

    Parameters
    ----------
    drawing
        The strokes.

    Attributes
    ----------
    failures
        How often they could not be read.
    """

    def __init__(self, drawing: Drawing) -> None:
        self._drawing, self.failures = drawing, 0
        self._planes: dict[int, Painted] = {}
        self._lock = threading.Lock()
        self._drawn: Drawn | None = None

    @property
    def version(self) -> int:
        """Present version of the drawing; nothing is read."""
        return self._drawing.version

    def read(self) -> Drawn:
        """Return the present strokes."""
        try:
            return self._read()
        except Exception:
            self.failures += 1
            raise

    def _read(self) -> Drawn:
        with self._lock:
            last, drawing = self._drawn, self._drawing
            version = drawing.version  # before the voxels: what is drawn meanwhile is read again next time
            if last is None:
                self._planes = _by_plane(drawing.points())
            elif version != last.version:
                planes = sorted({z for box in drawing.changed_since(last.version) for z in _planes_of(box)})
                for z in planes:
                    self._planes.pop(z, None)
                if planes:
                    self._planes |= _by_plane(drawing.points(planes))
            else:
                return last
            self._drawn = Drawn(
                version,
                _joined([self._planes[z] for z in sorted(self._planes)]),
                tuple(drawing.classes),
                str(getattr(drawing, "source", "strokes")),
                drawing.shape,
            )
            return self._drawn


def _planes_of(box: Box) -> range:
    return range(box[0].start, box[0].stop)


def _by_plane(painted: Painted) -> dict[int, Painted]:
    z = painted.places[:, 0]
    cuts = np.flatnonzero(np.diff(z)) + 1
    parts = zip(np.split(painted.places, cuts), np.split(painted.values, cuts), strict=True)
    return {int(places[0, 0]): Painted(places, values) for places, values in parts if len(places)}


def _joined(parts: Sequence[Painted]) -> Painted:
    if not parts:
        return Painted(np.empty((0, 3), np.int64), np.empty(0, np.uint16))
    return Painted(
        np.concatenate([part.places for part in parts]), np.concatenate([part.values for part in parts])
    )
