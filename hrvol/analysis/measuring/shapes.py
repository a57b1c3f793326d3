"""Turn sums over the voxels of components or objects into sizes, surfaces, places and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.crofton import area_per_crossing
from hrvol.analysis.sizes import VoxelGrid
from hrvol.arrays import Shape3

AXES = "zyx"

SECOND = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Pairs of axes of the second moments, in order."""

Columns = dict[str, Sequence[Any]]


def unit_of(grid: VoxelGrid, power: int) -> str:
    """Return a unit of length, area (2) or volume (3) for headers; negative powers too."""
    name = grid.length_unit()
    return name if power == 1 else f"{name}^{power}"


def axes_of(grid: VoxelGrid) -> list[int]:
    """Return the axes that count: 0, 1, 2 for (z, y, x); of an image 1 and 2."""
    return [axis for axis in range(3) if axis or grid.ndim == 3]


def size_columns(voxels: NDArray[np.int64], crossings: NDArray[np.int64], grid: VoxelGrid) -> Columns:
    """Return voxels, volume, equivalent diameter, surface and sphericity; of an image area, boundary, ...

    Parameters
    ----------
    voxels
        ``(n,)``.
    crossings
        ``(n, 13)``, see :func:`hrvol.analysis.measuring.crofton.crossings_of_components`.
    grid
        Size of the voxels.
    """
    flat = grid.ndim == 2
    sizes = voxels * grid.voxel_volume
    surface = crossings @ area_per_crossing(grid)
    with np.errstate(divide="ignore", invalid="ignore"):
        if flat:
            diameter = np.sqrt(4 * sizes / math.pi)
            roundness = 4 * math.pi * sizes / surface**2
        else:
            diameter = np.cbrt(6 * sizes / math.pi)
            roundness = math.pi ** (1 / 3) * (6 * sizes) ** (2 / 3) / surface
    size, area, round_name = (
        ("area", "boundary", "circularity") if flat else ("volume", "surface", "sphericity")
    )
    return {
        "voxels": voxels.tolist(),
        f"{size} [{unit_of(grid, grid.ndim)}]": sizes.tolist(),
        f"equivalent diameter [{unit_of(grid, 1)}]": diameter.tolist(),
        f"{area} [{unit_of(grid, grid.ndim - 1)}]": surface.tolist(),
        round_name: [float(value) if math.isfinite(value) else None for value in roundness],
    }


def place_columns(
    centres: NDArray[np.float64], boxes: NDArray[np.int32], shape: Shape3, grid: VoxelGrid
) -> tuple[Columns, Columns]:
    """Return the columns of centres, and those of boxes and whether these reach a border of the volume.

    Parameters
    ----------
    centres
        ``(n, 3)`` in voxels.
    boxes
        ``(n, 6)`` half-open, in voxels: first all starts.
    shape
        Of the volume.
    grid
        Size of the voxels.
    """
    places: Columns = {}
    for axis in axes_of(grid):
        places[f"{AXES[axis]} [{unit_of(grid, 1)}]"] = (centres[:, axis] * grid.voxel_size[axis]).tolist()
    extent: Columns = {}
    for end in (0, 1):
        for axis in axes_of(grid):
            extent[f"{AXES[axis]}{end} [voxel]"] = boxes[:, axis + 3 * end].tolist()
    border = np.zeros(len(boxes), np.bool_)
    for axis, side in enumerate(shape):
        if side > 1:
            border |= (boxes[:, axis] == 0) | (boxes[:, axis + 3] == side)
    extent["at border"] = border.astype(int).tolist()
    return places, extent


def axis_columns(
    voxels: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], grid: VoxelGrid
) -> Columns:
    """Return the axes of the ellipsoid with the same second moments, its direction, and a length.

    Parameters
    ----------
    voxels
        ``(n,)``.
    first, second
        ``(n, 3)`` and ``(n, 6)`` sums of the positions (z, y, x) in voxels, from any origin, and of their
        products (:data:`SECOND`).
    grid
        Size of the voxels.

    Returns
    -------
    dict
        ``length``: of a straight rod with this spread along its main axis; axes of the ellipsoid, longest
        first; the direction of the longest, of length 1, pointing to larger z (then y, x).
    """
    count = np.maximum(voxels, 1).astype(np.float64)
    size = np.array(grid.voxel_size)
    centre = first / count[:, None]
    spread = np.zeros((len(voxels), 3, 3))
    for column, (a, b) in enumerate(SECOND):
        value = (second[:, column] / count - centre[:, a] * centre[:, b]) * size[a] * size[b]
        spread[:, a, b] = spread[:, b, a] = value
    for axis in range(3):
        spread[:, axis, axis] += size[axis] ** 2 / 12  # a voxel is no point
    keep = axes_of(grid)
    values, vectors = np.linalg.eigh(spread[:, keep][:, :, keep])
    values = np.maximum(values[:, ::-1], 0.0)
    main = vectors[:, :, -1]
    leading = main[np.arange(len(main)), np.argmax(np.abs(main) > 1e-9, axis=1)] if len(main) else 1.0
    main = main * np.where(leading < 0, -1.0, 1.0)[..., None] if len(main) else main
    unit = unit_of(grid, 1)
    names = ("major", "minor") if grid.ndim == 2 else ("major", "middle", "minor")
    factor = 4.0 if grid.ndim == 2 else math.sqrt(20)
    columns: Columns = {f"length [{unit}]": np.sqrt(12 * values[:, 0]).tolist()}
    for number, name in enumerate(names):
        columns[f"{name} axis [{unit}]"] = (factor * np.sqrt(values[:, number])).tolist()
    for number, axis in enumerate(keep):
        columns[f"direction {AXES[axis]}"] = main[:, number].tolist()
    return columns
