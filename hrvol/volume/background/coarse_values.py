"""Read a volume coarsely, in bounded time and memory: lowest, mean and highest value of cells of voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.volume.volume import Volume, open_volume

MOST_READ = 2**30
"""Most voxels to read of a volume without coarser levels, about."""

SIDE = 256
"""Most cells along an axis."""

_LEVEL = 2**27  # voxels of a coarser level that is read

_FEW = 8  # slabs that are read at least of a volume that is too large to be read

_PIECE = 2**24


@dataclass(frozen=True, eq=False)
class CoarseValues:
    """Grey values of the cells of a volume.

    Attributes
    ----------
    low, mean, high
        ``(z, y, x)`` float32: of the voxels of each cell.
    factors
        Voxels per cell along each axis.
    planes
        Share (0..1) of the planes that were read: below 1, a cell is as deep as the volume.
    """

    low: NDArray[np.float32]
    mean: NDArray[np.float32]
    high: NDArray[np.float32]
    factors: Shape3
    planes: float


def read_coarsely(volume: Volume) -> CoarseValues:
    """Return the grey values of cells of a volume.

    A volume of at most :data:`MOST_READ` voxels is read whole. Of a larger one a coarser level is read, if it
    has one; else some slabs of planes, spread evenly, and a cell is as deep as the volume.

    Raises
    ------
    InputError
        The volume cannot be read.
    """
    volume = volume.as_grey()
    depth, height, width = volume.shape
    across = max(1, math.ceil(max(height, width) / SIDE))
    if math.prod(volume.shape) <= MOST_READ:
        factors = (max(1, math.ceil(depth / SIDE)), across, across)
        return _reduced(volume, factors, [slice(0, depth)], 1.0)
    level = _coarser(volume)
    if level is not None:
        coarse, factors = level
        shrink = tuple(max(1, math.ceil(side / SIDE)) for side in coarse.shape)
        values = _reduced(coarse, (shrink[0], shrink[1], shrink[2]), [slice(0, coarse.shape[0])], 1.0)
        whole = tuple(a * b for a, b in zip(factors, shrink, strict=True))
        return CoarseValues(values.low, values.mean, values.high, (whole[0], whole[1], whole[2]), 1.0)
    thick = min(volume.chunks[0] if volume.chunks != volume.shape else 1, depth)
    count = min(math.ceil(depth / thick), max(_FEW, MOST_READ // (height * width * thick)))
    starts = np.unique(np.linspace(0, math.ceil(depth / thick) - 1, count).round().astype(int) * thick)
    slabs = [slice(int(start), min(int(start) + thick, depth)) for start in starts]
    share = sum(slab.stop - slab.start for slab in slabs) / depth
    return _reduced(volume, (depth, across, across), slabs, share)


def _coarser(volume: Volume) -> tuple[Volume, Shape3] | None:
    """Return the finest coarser level that may be read, and its voxels per voxel of the volume."""
    if volume.origin is None:
        return None
    location, labels, level = volume.origin
    if labels is not None:
        return None
    while True:
        level += 1
        try:
            coarse = open_volume(location, level=level)
        except InputError:
            return None
        factors = tuple(round(b / a) for a, b in zip(volume.voxel_size, coarse.voxel_size, strict=True))
        expected = [
            range(n // f, -(-n // f) + 1) for n, f in zip(volume.shape, factors, strict=True) if f > 0
        ]
        fits = len(expected) == 3 and all(n in sides for n, sides in zip(coarse.shape, expected, strict=True))
        if not fits:
            return None
        if math.prod(coarse.shape) <= _LEVEL:
            return coarse, (factors[0], factors[1], factors[2])


def _reduced(volume: Volume, factors: Shape3, slabs: list[slice], share: float) -> CoarseValues:
    """Return the values of cells, of the planes in some slabs; pieces of whole chunks are read."""
    shape = tuple(-(-n // f) for n, f in zip(volume.shape, factors, strict=True))
    low, high = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    total, count = np.zeros(shape, np.float64), np.zeros(shape, np.float32)
    deep, rows = _piece(volume, factors)
    for slab in slabs:
        for z in range(slab.start, slab.stop, deep):
            for y in range(0, volume.shape[1], rows):
                spans = (
                    slice(z, min(z + deep, slab.stop)),
                    slice(y, min(y + rows, volume.shape[1])),
                    slice(0, volume.shape[2]),
                )
                values = volume.read(spans)
                if values.dtype.kind == "f":
                    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
                cells = tuple(
                    slice(s.start // f, -(-s.stop // f)) for s, f in zip(spans, factors, strict=True)
                )
                edges = [
                    [max(c * f, s.start) - s.start for c in range(cell.start, cell.stop)]
                    for cell, s, f in zip(cells, spans, factors, strict=True)
                ]
                low[cells] = np.minimum(low[cells], _over(np.minimum, values, edges))
                high[cells] = np.maximum(high[cells], _over(np.maximum, values, edges))
                total[cells] += _over(np.add, values.astype(np.float32), edges)
                sizes = [np.diff([*edge, n]) for edge, n in zip(edges, values.shape, strict=True)]
                count[cells] += np.einsum("z,y,x->zyx", *sizes)
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    return CoarseValues(low, mean, high, factors, share)


def _over(function: np.ufunc, values: NDArray[np.generic], edges: list[list[int]]) -> NDArray[np.float32]:
    reduced = values
    for axis in (2, 1, 0):
        reduced = function.reduceat(reduced, edges[axis], axis=axis)
    return reduced.astype(np.float32)


def _piece(volume: Volume, factors: Shape3) -> tuple[int, int]:
    """Return planes and rows that are read at once: whole chunks and cells, unless these are too large."""
    chunks = volume.chunks if volume.chunks != volume.shape else (1, 64, 64)
    width, rows = volume.shape[2], max(chunks[1], min(factors[1], volume.shape[1]))
    deep = min(max(chunks[0], factors[0]), volume.shape[0])
    if deep * rows * width > 8 * _PIECE:
        deep = chunks[0]
    return deep, rows * max(1, _PIECE // (deep * rows * width))
