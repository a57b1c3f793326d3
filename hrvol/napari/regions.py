"""Regions of a volume from rectangles that are drawn on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError
from hrvol.volume.grid.tiling import Box
from hrvol.volume.volume import Volume


def rectangle_region(corners: NDArray[Any], volume: Volume, planes: tuple[int, int] | None = None) -> Box:
    """Return the box of voxels whose centres are inside a rectangle.

    Parameters
    ----------
    corners
        ``(n, d)`` world coordinates of the shape, of which the last two axes are y and x, and the one before
        them, if there is one, z.
    volume
        The volume, whose voxel size and position are those of the world.
    planes
        First plane and the one after the last; ``None``: those of the corners.

    Raises
    ------
    UsageError
        The rectangle or the planes are outside of the volume.
    """
    world = np.asarray(corners, np.float64)
    axes = min(world.shape[1], volume.ndim)
    size, start = volume.voxel_size[-axes:], volume.translation[-axes:]
    places = (world[:, -axes:] - start) / size
    low, high = places.min(axis=0), places.max(axis=0)
    spans = [
        _inside(math.ceil(a - 1e-6), math.floor(b + 1e-6) + 1, n)
        for a, b, n in zip(low[-2:], high[-2:], volume.shape[1:], strict=True)
    ]
    depth = volume.shape[0]
    if planes is None:
        planes = (0, depth) if axes == 2 else (round(low[0]), round(high[0]) + 1)
    z = _inside(*planes, depth)
    if any(span.start >= span.stop for span in (z, *spans)):
        sides = " x ".join(map(str, volume.shape))
        raise UsageError(f"region: found none of its voxels inside the volume of {sides}")
    return z, spans[0], spans[1]


def _inside(start: int, stop: int, length: int) -> slice:
    return slice(max(0, start), min(length, stop))


def shape_corners(layer: Any) -> NDArray[np.float64]:
    """Return world coordinates of the selected, or else the last, shape of a Shapes layer.

    Raises
    ------
    UsageError
        Nothing is drawn in it.
    """
    if not len(layer.data):
        raise UsageError(f"{layer.name}: found no shape, expected a rectangle")
    chosen: Sequence[int] = sorted(layer.selected_data)
    corners = np.asarray(layer.data[chosen[0] if chosen else -1])
    return np.array([layer.data_to_world(corner) for corner in corners], np.float64)
