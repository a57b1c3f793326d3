"""Tiles of planes along any axis of a volume: what a teacher labels for its students."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import Box, Rectangle, Tile
from hrvol.volume.intensity import Window, to_unit
from hrvol.volume.volume import Volume

AXES = (0, 1, 2)


@dataclass(frozen=True)
class PlaneTile:
    """A tile of a plane.

    Attributes
    ----------
    axis
        Axis that the plane is perpendicular to: 0 (z), 1 (y) or 2 (x).
    position
        Position of the plane along it.
    tile
        The tile, in coordinates of the plane: its rows and columns are the other two axes in order.
    """

    axis: int
    position: int
    tile: Tile

    @property
    def core(self) -> Box:
        """The voxels that the tile labels."""
        return self._box(self.tile.core)

    @property
    def window(self) -> Box:
        """The voxels that it is labelled from."""
        return self._box(self.tile.window)

    def _box(self, rectangle: Rectangle) -> Box:
        spans = [slice(rectangle[0], rectangle[1]), slice(rectangle[2], rectangle[3])]
        spans.insert(self.axis, slice(self.position, self.position + 1))
        return spans[0], spans[1], spans[2]

    def image(self, volume: Volume, window: Window) -> NDArray[np.float32]:
        """Return the grey values ``(rows, columns)`` in [0, 1] from which the tile is labelled."""
        box = self.window
        origin = (box[0].start, box[1].start, box[2].start)
        values = to_unit(volume.read(box), window, source=volume.source, origin=origin)
        plane: NDArray[np.float32] = values.squeeze(self.axis)
        return plane

    def digest(self, volume: Volume) -> str:
        """Return a digest of the grey values from which the tile is labelled."""
        values = volume.read(self.window).squeeze(self.axis)
        return hashlib.sha256(f"{values.shape}{values.dtype}".encode() + values.tobytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the position and the labelled pixels as JSON values."""
        return {"axis": "zyx"[self.axis], "position": self.position, "core": list(self.tile.core)}


def layout(shape: Shape3, axis: int, tiles: TileSpec) -> tuple[Tile, ...]:
    """Return the tiles of a plane perpendicular to an axis of a volume."""
    sides = [side for number, side in enumerate(shape) if number != axis]
    return tuple(plane_tiles((sides[0], sides[1]), tiles))
