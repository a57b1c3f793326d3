"""Check what is to be read and drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hrvol.arrays import Shape3
from hrvol.errors import StrokesError
from hrvol.text import printable
from hrvol.volume.grid.tiling import Box, box_shape

MOST_VOXELS = 2**32
"""Most voxels that are read or set at once."""

Where = tuple[Any, Any, Any]
"""A box (slices with explicit bounds), or index arrays, along z, y and x."""


def checked_values(values: ArrayLike, highest: int, source: str) -> NDArray[Any]:
    """Return values as uint16; :class:`StrokesError` unless they are whole numbers from 0 to the highest."""
    found = np.asarray(values)
    if found.dtype.kind not in "biu":
        raise StrokesError(f"{source}: found values of type {found.dtype}, expected whole numbers")
    if found.size and not 0 <= int(found.min()) <= int(found.max()) <= highest:
        raise StrokesError(f"{source}: found values {found.min()} to {found.max()}, expected 0 to {highest}")
    return found.astype(np.uint16)


def fitting(values: NDArray[Any], shape: tuple[int, ...], source: str) -> NDArray[Any]:
    """Return values broadcast to a shape; :class:`StrokesError` if they cannot be."""
    try:
        return np.broadcast_to(values, shape)
    except ValueError:
        raise StrokesError(f"{source}: found values of shape {values.shape}, expected {shape}") from None


def checked_box(box: Where, shape: Shape3, source: str) -> Box:
    """Return a box inside a volume; :class:`StrokesError` for another, or one too large for memory."""
    for axis, span, length in zip("zyx", box, shape, strict=True):
        if (
            span.step not in (None, 1)
            or span.start is None
            or span.stop is None
            or not 0 <= span.start <= span.stop <= length
        ):
            shown = printable(f"{span.start}:{span.stop}", 60)
            raise StrokesError(f"{source}: found {axis} {shown}, expected a part of 0:{length}")
    size = float(np.prod([float(n) for n in box_shape(box)]))
    if size > MOST_VOXELS:
        raise StrokesError(
            f"{source}: found a box of {size:.3g} voxels, expected at most {MOST_VOXELS:.3g} at once"
        )
    return box


def checked_places(where: Where, shape: Shape3, source: str) -> NDArray[np.int64]:
    """Return index arrays (z, y, x) as places ``(..., 3)``; :class:`StrokesError` outside of a volume."""
    try:
        z, y, x = np.broadcast_arrays(*map(np.asarray, where))
    except ValueError:
        raise StrokesError(f"{source}: found indices of different shapes, expected one") from None
    places = np.stack([z, y, x], axis=-1)
    if places.size and places.dtype.kind not in "iu":
        raise StrokesError(f"{source}: found indices of type {places.dtype}, expected whole numbers")
    places = places.astype(np.int64)
    flat = places.reshape(-1, 3)
    if len(flat):
        low, high = flat.min(axis=0), flat.max(axis=0)
        if (low < 0).any() or (high >= shape).any():
            raise StrokesError(
                f"{source}: found voxels {low.tolist()} to {high.tolist()}, expected z, y, x below"
                f" {shape[0]}, {shape[1]}, {shape[2]}"
            )
    return places
