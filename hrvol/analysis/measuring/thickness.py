"""Local thickness of a mask: the diameter of the largest ball inside of it that holds a voxel.

A ball of radius r around a voxel is inside if no voxel outside is nearer than r; it holds the voxels nearer
than r. For each tested diameter, the voxels in any such ball are found by two Euclidean distance transforms:
to the outside, and to the centres of the balls. Distances are between centres of voxels.

Hildebrand and Rüegsegger 1997, A new method for the model-independent assessment of thickness in
three-dimensional images, J. Microscopy 185, 67.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, Spacing3
from hrvol.errors import MissingExtraError
from hrvol.volume.grid.tiling import Box, around, box_shape, whole

SMALLEST = 2
"""Smallest tested diameter, in shortest sides of voxels: the next voxel is one side away."""

_BELOW = 1 - 2e-6
"""Factor of squared radii, so that rounding (float32) moves no squared distance across one."""


def check_distances() -> None:
    """Raise a :class:`MissingExtraError` if the package of distance transforms is not installed."""
    if find_spec("edt") is None:
        raise MissingExtraError("thickness: needs the package edt: pip install 'hrvol[measure]'")


def reach_of_diameter(diameter: float, sampling: Spacing3) -> Shape3:
    """Return the voxels (z, y, x) around a block that determine which balls of a diameter reach into it."""
    z, y, x = (math.ceil(diameter / side) for side in sampling)
    return z, y, x


def thickness_numbers(mask: NDArray[np.bool_], sampling: Spacing3, most: int) -> NDArray[np.uint16]:
    """Return the largest tested diameter of a ball inside of a mask that holds each voxel.

    Parameters
    ----------
    mask
        ``(z, y, x)``. What is outside of the array is not known, and bounds no ball; centres are inside.
    sampling
        Sides (z, y, x) of a voxel, the shortest 1.
    most
        The diameters 2, 3, ..., ``most`` are tested, in shortest sides.

    Returns
    -------
    numpy.ndarray
        ``(z, y, x)`` uint16: diameters, and 0 outside of the mask.
    """
    found = np.where(mask, np.uint16(SMALLEST), np.uint16(0))
    squares = _squared_distances(mask, sampling)
    inner = whole(_shape_of(mask))
    for diameter in range(SMALLEST + 1, most + 1):
        square = (diameter / 2) ** 2 * _BELOW
        centres = squares[inner] >= square
        box = _box_of(centres)
        if box is None:
            break
        centres = centres[box]
        inner = _moved(box, inner)
        z, y, x = (math.ceil(diameter / 2 / side) for side in sampling)
        outer = around(inner, (z, y, x), _shape_of(mask))
        others = np.ones(box_shape(outer), np.bool_)
        others[_inside(inner, outer)] = ~centres
        found[outer][_squared_distances(others, sampling) < square] = diameter
    return found


def _squared_distances(mask: NDArray[np.bool_], sampling: Spacing3) -> NDArray[np.float32]:
    """Return the squared distance of each voxel of a mask to the next one outside; infinite without any."""
    import edt

    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    found: NDArray[np.float32] = edt.edtsq(
        np.ascontiguousarray(mask), anisotropy=sampling, black_border=False, parallel=1
    )
    return found


def _box_of(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box that holds a mask, or ``None`` if it is empty."""
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if not len(places):
            return None
        spans.append(slice(int(places[0]), int(places[-1]) + 1))
    return spans[0], spans[1], spans[2]


def _moved(box: Box, origin: Box) -> Box:
    z, y, x = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, origin, strict=True))
    return z, y, x


def _inside(box: Box, outer: Box) -> Box:
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))
    return z, y, x


def _shape_of(array: NDArray[Any]) -> Shape3:
    z, y, x = array.shape
    return z, y, x
