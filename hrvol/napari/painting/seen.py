"""Find what of a volume the viewer shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrvol.napari.layers import plane_of

MOST = 2048
"""Most values of a side of a preview; of a larger region fewer values are computed."""

_UNKNOWN = 1024  # pixels of a side around the middle, before the window was drawn


@dataclass(frozen=True)
class Seen:
    """A visible region, as :meth:`hrvol.Session.view` takes it."""

    plane: int
    rows: slice
    columns: slice
    level: int


def seen_of(viewer: Any, layer: Any) -> Seen | None:
    """Return what is visible of a layer; ``None`` in 3-D, or if other planes than those of z are shown.

    Parameters
    ----------
    viewer
        The viewer.
    layer
        Of the volume's shape, one level.
    """
    n = layer.ndim
    offset = viewer.dims.ndim - n
    displayed = tuple(axis - offset for axis in viewer.dims.displayed)
    if tuple(sorted(displayed)) != (n - 2, n - 1):
        return None
    plane = plane_of(viewer, layer)
    if plane is None:
        return None
    spans = [_span(layer, axis) for axis in (n - 2, n - 1)]
    if any(span.start >= span.stop for span in spans):
        return None
    pixel = float(np.asarray(layer.scale, float)[-1]) * float(camera_of(viewer).zoom)  # of the screen
    level = max(0, math.floor(math.log2(1 / pixel))) if 0 < pixel < 1 else 0
    longest = max(span.stop - span.start for span in spans)
    while longest >> level > MOST:
        level += 1
    return Seen(plane, spans[0], spans[1], level)


def camera_of(viewer: Any) -> Any:
    """Return the camera, which belongs to the scene since napari 0.9."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def _span(layer: Any, axis: int) -> slice:
    """Return the visible pixels of an axis."""
    length = int(layer.data.shape[axis])
    first, last = (int(corner[axis]) for corner in layer.corner_pixels)
    if last - first < 2:  # nothing was drawn yet
        middle = length // 2
        first, last = middle - _UNKNOWN // 2, middle + _UNKNOWN // 2 - 1
    return slice(max(0, first), min(length, last + 1))
