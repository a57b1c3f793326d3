"""Estimate surfaces from how often lines of voxels cross them, in 13 directions (Crofton's formula).

Lines of random position and direction cross a surface of area S per volume S / 2 times per length. Voxels
give lines along 13 directions of space (4 of a plane), each for the directions nearest to it.
Counts of crossings are whole numbers that add up over blocks.

Lang, Ohser and Hilfer 2001, On the analysis of spatial binary images, J. Microscopy 203, 303; Lehmann and
Legland 2012, Efficient N-dimensional surface estimation using Crofton formula, Insight Journal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi

from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3
from hrvol.volume.grid.tiling import Box

DIRECTIONS: tuple[Shape3, ...] = tuple(
    (z, y, x) for z, y, x in product((-1, 0, 1), repeat=3) if (z, y, x) > (0, 0, 0)
)
"""The 13 directions (z, y, x) to neighbours, one of each opposite pair."""


def area_per_crossing(grid: VoxelGrid) -> NDArray[np.float64]:
    """Return the area that a crossing along each of :data:`DIRECTIONS` stands for.

    Parameters
    ----------
    grid
        Size of the voxels; of an image, lengths of a boundary are returned, and 0 for directions that leave
        its plane.

    Returns
    -------
    numpy.ndarray
        ``(13,)`` float64 in squared units; of an image in units.
    """
    steps = np.array(DIRECTIONS) * np.array(grid.voxel_size)
    lengths = np.linalg.norm(steps, axis=1)
    if grid.ndim == 2:
        flat = np.array([step[0] == 0 for step in DIRECTIONS])
        weights = np.zeros(len(steps))
        weights[flat] = _shares_of_circle(steps[flat, 1:])
        return np.asarray(math.pi / 2 * weights * grid.voxel_volume / lengths)
    units = np.concatenate([steps, -steps]) / np.concatenate([lengths, lengths])[:, None]
    shares = SphericalVoronoi(units).calculate_areas() / (4 * math.pi)
    both = shares[: len(steps)] + shares[len(steps) :]
    return np.asarray(2 * both * grid.voxel_volume / lengths)


def pairs(map_box: Box, core: Box, directed: bool) -> Iterator[tuple[int, Box, Box]]:
    """Yield for each direction the voxels of a block and their neighbours, as slices of a map.

    Parameters
    ----------
    map_box
        Where the map lies in the volume: the block, and one voxel around it where the volume does not end.
    core
        The block.
    directed
        Whether to yield both neighbours along a direction, or only the one of a higher index.

    Yields
    ------
    tuple
        Number of the direction, voxels of the block that have such a neighbour, and the neighbours.
    """
    for number, direction in enumerate(DIRECTIONS):
        for sign in (1, -1) if directed else (1,):
            own, other = [], []
            for step, span, around in zip(direction, core, map_box, strict=True):
                start = max(span.start, around.start - sign * step)
                stop = min(span.stop, around.stop - sign * step)
                own.append(slice(start - around.start, stop - around.start))
                other.append(slice(start + sign * step - around.start, stop + sign * step - around.start))
            if all(span.start < span.stop for span in own):
                yield number, (own[0], own[1], own[2]), (other[0], other[1], other[2])


def crossings(classes: NDArray[Any], map_box: Box, core: Box, count: int) -> NDArray[np.int64]:
    """Count the pairs of neighbours of two classes, each pair by one block.

    Parameters
    ----------
    classes
        Numbers 0..count-1 ``(z, y, x)`` of the map.
    map_box, core
        As for :func:`pairs`.
    count
        Number of classes.

    Returns
    -------
    numpy.ndarray
        ``(13, count, count)`` int64, symmetric, 0 on the diagonals.
    """
    table = np.zeros((len(DIRECTIONS), count * count), np.int64)
    for number, own, other in pairs(map_box, core, directed=False):
        a, b = classes[own], classes[other]
        differ = a != b
        keys = a[differ].astype(np.int64) * count + b[differ]
        table[number] += np.bincount(keys, minlength=count * count)
    square = table.reshape(-1, count, count)
    return square + square.transpose(0, 2, 1)


def crossings_of_components(
    classes: NDArray[Any], numbered: NDArray[Any], map_box: Box, core: Box, count: int
) -> NDArray[np.int64]:
    """Count how often lines leave the components of a block.

    Parameters
    ----------
    classes, map_box, core
        As for :func:`crossings`.
    numbered
        Component 1..count ``(z, y, x)`` of the voxels of the block, 0 for none.
    count
        Number of components.

    Returns
    -------
    numpy.ndarray
        ``(count, 13)`` int64.
    """
    table = np.zeros((len(DIRECTIONS), count + 1), np.int64)
    shift = [span.start - around.start for span, around in zip(core, map_box, strict=True)]
    for number, own, other in pairs(map_box, core, directed=True):
        leaves = classes[own] != classes[other]
        z, y, x = (slice(s.start - low, s.stop - low) for s, low in zip(own, shift, strict=True))
        table[number] += np.bincount(numbered[z, y, x][leaves], minlength=count + 1)
    return table[:, 1:].T


def _shares_of_circle(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of all directions of a plane that are nearest to each of some directions."""
    angles = np.arctan2(steps[:, 0], steps[:, 1]) % math.pi
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order][0] + math.pi)
    shares = np.empty(len(angles))
    shares[order] = (gaps + np.roll(gaps, 1)) / 2 / math.pi
    return shares
