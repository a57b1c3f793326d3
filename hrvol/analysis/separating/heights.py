"""The landscapes that are flooded to separate objects: distance to the border of a class, or probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hrvol.arrays import Shape3, Spacing3
from hrvol.volume.grid.tiling import Box, around, box_shape, whole

STEPS = 64
"""Heights per length of the shortest side of a voxel."""

MOST_DISTANCE = 1000
"""Largest distance that a height of 16 bits can hold, in shortest sides of voxels."""

FIRST_DISTANCE = 16
"""Distance around a block that is read first, in shortest sides of voxels; doubled where it is too short."""


def kept_classes(labels: NDArray[Any], classes: Sequence[int]) -> NDArray[np.uint16]:
    """Return labels ``(z, y, x)`` as they are where they are of some classes (at most 65,535), else 0."""
    inside = np.isin(labels, np.asarray(classes))
    return np.where(inside, labels, 0).astype(np.uint16)


def distance_heights(
    read: Callable[[Box], NDArray[np.uint16]], core: Box, shape: Shape3, sampling: Spacing3, most: float
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the classes of a block and its heights: distances to the next voxel of another class.

    What is read around the block grows until all distances are exact, or as long as ``most``.

    Parameters
    ----------
    read
        Returns the classes of a box, 0 outside of those that count.
    core, shape
        The block, and the shape of the volume. What is outside of the volume is not known, and bounds
        nothing.
    sampling
        Sides (z, y, x) of a voxel, the shortest 1.
    most
        Longer distances are as this one.

    Returns
    -------
    tuple
        Classes, and heights ``(z, y, x)`` uint16 in 1 / :data:`STEPS`, above 0 inside of classes.
    """
    distance = min(float(FIRST_DISTANCE), most)
    while True:
        box = around(core, reach_of(distance, sampling), shape)
        classes = read(box)
        z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(core, box, strict=True))
        found = _distances(classes, (z, y, x), sampling)
        if distance >= most or box == whole(shape) or float(found.max()) <= distance:
            return classes[z, y, x], np.rint(np.minimum(found, most) * STEPS).astype(np.uint16)
        distance = min(2 * distance, most)


def _distances(classes: NDArray[np.uint16], core: Box, sampling: Spacing3) -> NDArray[np.float64]:
    """Return the distance of each voxel of a part of a map to the next voxel of another class, 0 for 0."""
    distances = np.zeros(box_shape(core))
    inside = classes[core]
    for value in np.unique(inside):
        if not value:
            continue
        mask, own = classes == value, inside == value
        if mask.all():
            distances[own] = np.inf
            continue
        # The distances of scipy need several times the memory of the indices.
        nearest = ndimage.distance_transform_edt(
            mask, sampling=sampling, return_distances=False, return_indices=True
        )
        places = np.nonzero(own)
        square = np.zeros(len(places[0]))
        for axis, (span, side) in enumerate(zip(core, sampling, strict=True)):
            square += np.square((nearest[axis][core][own] - places[axis] - span.start) * side)
        distances[own] = np.sqrt(square)
    return distances


def reach_of(distance: float, sampling: Spacing3) -> Shape3:
    """Return the voxels (z, y, x) within a distance."""
    z, y, x = (int(np.ceil(distance / side)) for side in sampling)
    return z, y, x


def probability_heights(
    kept: NDArray[np.uint16], probabilities: NDArray[np.uint8], values: Sequence[int]
) -> NDArray[np.uint16]:
    """Return the heights of a block: the probability of the class of each voxel.

    Parameters
    ----------
    kept
        Classes ``(z, y, x)``, 0 outside of those that count.
    probabilities
        ``(K, z, y, x)``, 255 = certain.
    values
        Class of each of the K channels.

    Returns
    -------
    numpy.ndarray
        ``(z, y, x)`` uint16: 1 to 256 inside of classes, and 0 elsewhere.
    """
    heights = np.zeros(kept.shape, np.uint16)
    for value, channel in zip(values, probabilities, strict=True):
        inside = kept == value
        heights[inside] = channel[inside].astype(np.uint16) + 1
    return heights
