"""Turn points, lines and polygons of a plane into pixels.

Coordinates are (row, column); the centre of a pixel is at whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from skimage.draw import line, polygon2mask

from hrvol.errors import StrokesError

MOST_PIXELS = 2**27
"""Most pixels of the box around a shape."""

Pixels = NDArray[np.int64]
"""``(n, 2)`` rows and columns."""


def disc(row: float, column: float, radius: float, source: str) -> Pixels:
    """Return the pixels whose centres are within a radius in pixels; at least the one of the centre."""
    centre = np.array([[math.floor(row + 0.5), math.floor(column + 0.5)]], np.int64)
    if radius < 0.5:
        return centre
    rows, columns, low = _around(np.array([[row, column]]), radius, source)
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return np.concatenate([centre, np.argwhere(inside) + low])


def path(vertices: NDArray[np.float64], width: float, source: str) -> Pixels:
    """Return the pixels of a line through vertices ``(n, 2)``, of a width in pixels."""
    radius = width / 2
    pieces = [disc(float(row), float(column), radius, source) for row, column in vertices]
    for start, stop in pairwise(vertices):
        if radius <= 0.75:  # one pixel wide
            _around(np.stack([start, stop]), 0, source)  # checks the size
            ends = np.floor(np.concatenate([start, stop]) + 0.5).astype(int)
            pieces.append(np.stack(line(*ends), axis=1).astype(np.int64))
            continue
        rows, columns, low = _around(np.stack([start, stop]), radius, source)
        along = stop - start
        length = float(along @ along) or 1.0
        share = np.clip(((rows - start[0]) * along[0] + (columns - start[1]) * along[1]) / length, 0, 1)
        distance = np.hypot(rows - start[0] - share * along[0], columns - start[1] - share * along[1])
        pieces.append(np.argwhere(distance <= radius) + low)
    return np.concatenate(pieces)


def polygon(rings: Sequence[NDArray[np.float64]], source: str) -> Pixels:
    """Return the pixels inside an odd number of rings ``(n, 2)``: holes are rings inside of rings."""
    corners = np.concatenate(rings)
    rows, columns, low = _around(corners, 1, source)
    inside = np.zeros((len(rows), columns.shape[1]), np.bool_)
    for ring in rings:
        if len(ring) >= 3:
            inside ^= polygon2mask(inside.shape, ring - low)
    return np.argwhere(inside) + low


def ellipse(box: tuple[float, float, float, float], source: str) -> Pixels:
    """Return the pixels inside the ellipse in a box: edges (top, left, bottom, right)."""
    top, left, bottom, right = box
    rows, columns, low = _around(np.array([[top, left], [bottom, right]]), 0, source)
    centre, half = ((top + bottom) / 2, (left + right) / 2), ((bottom - top) / 2, (right - left) / 2)
    if min(half) <= 0:
        return np.empty((0, 2), np.int64)
    inside = ((rows - centre[0]) / half[0]) ** 2 + ((columns - centre[1]) / half[1]) ** 2 <= 1
    return np.argwhere(inside) + low


def _around(
    points: NDArray[np.float64], margin: float, source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows ``(h, 1)`` and columns ``(1, w)`` of the box around points, and its first pixel."""
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 2**31:
        raise StrokesError(f"{source}: found a coordinate that is no number of pixels, expected a finite one")
    low = np.floor(points.min(axis=0) - margin).astype(np.int64)
    high = np.ceil(points.max(axis=0) + margin).astype(np.int64) + 1
    if math.prod((high - low).tolist()) > MOST_PIXELS:
        raise StrokesError(
            f"{source}: found a shape of {high[0] - low[0]} x {high[1] - low[1]} pixels, expected at most"
            f" {MOST_PIXELS:,}"
        )
    return np.arange(low[0], high[0])[:, None], np.arange(low[1], high[1])[None], low
