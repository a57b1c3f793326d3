"""The lattice of windows that a student predicts, which depends on the volume's shape alone.

A convolution may round differently in windows of another size. So the windows are the same whatever blocks,
workers and regions a run has: identical labels, bit for bit, and no seams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec
from hrvol.segment.student.spec import MOST_ALIGNMENT, StudentSpec

Spans = tuple[slice, slice, slice]
"""Slices (z, y, x) with explicit bounds; windows may reach beyond the volume."""

STEP = MOST_ALIGNMENT
"""Sides of cells are multiples of this: aligned, and divisible into chunks of the output."""

WINDOW_BYTES = 2**30
"""Most memory of a prediction's intermediate results."""

LONGEST = 2048
"""Longest side of a cell in a plane."""

DEEPEST = 128
"""Most planes of a cell of a 3D student."""

BLOCK_VOXELS = 2**26
"""Voxels of a block, about."""

GPU_PLANES = 8
"""Planes that are predicted together on a GPU."""

CLASSES = 3
"""Number of classes where it is not given."""

LARGE_ARRAY = 2**25
"""Bytes above which glibc maps memory for every array, page by page; caches do not hold it either."""

LARGE_COST = 1.25
"""Time of a prediction whose arrays are larger, per voxel of its window, relative to others."""

_LIVE = 3
"""Arrays of the finest level, or of all classes, in memory at a time."""


@dataclass(frozen=True)
class Lattice:
    """Cells that divide a volume, and their windows.

    Attributes
    ----------
    shape
        Of the volume, (z, y, x).
    cell
        Voxels of a cell per axis. Cells at the far borders reach beyond the volume, so that all windows have
        one size.
    halo
        Voxels around a cell that its prediction depends on.
    """

    shape: Shape3
    cell: Shape3
    halo: Shape3

    def cells(self, box: Spans) -> Iterator[Spans]:
        """Yield the cells that have voxels of a box inside the volume, in order of z, y, x."""
        ranges = (
            range(span.start // side, -(-span.stop // side))
            for span, side in zip(box, self.cell, strict=True)
        )
        for index in product(*ranges):
            z, y, x = (slice(i * side, (i + 1) * side) for i, side in zip(index, self.cell, strict=True))
            yield z, y, x

    def window(self, cell: Spans) -> Spans:
        """Return the voxels from which a cell is predicted; they may lie beyond the volume."""
        z, y, x = (
            slice(span.start - around, span.stop + around)
            for span, around in zip(cell, self.halo, strict=True)
        )
        return z, y, x

    def reads(self, box: Spans) -> Spans:
        """Return the voxels of the volume from which a box is predicted.

        They hold what is mirrored at the borders: no more than the halo is.
        """
        z, y, x = (
            slice(max(span.start // side * side - around, 0), min(_up(span.stop, side) + around, length))
            for span, side, around, length in zip(box, self.cell, self.halo, self.shape, strict=True)
        )
        return z, y, x

    def reads_of(self, window: Spans) -> Spans:
        """Return the voxels of the volume that stand for those of one window."""
        bounds = []
        for span, length in zip(window, self.shape, strict=True):
            indices = reflected(span.start, span.stop, length)
            bounds.append(slice(int(indices.min()), int(indices.max()) + 1))
        return bounds[0], bounds[1], bounds[2]

    def cut(self, window: Spans, values: NDArray[np.generic], origin: Shape3) -> NDArray[np.generic]:
        """Return the values of a window, mirrored at the borders of the volume.

        Beyond the halo the last mirrored value is repeated: no voxel of the volume depends on it.

        Parameters
        ----------
        window
            As :meth:`window` returns it.
        values
            ``(z, y, x)``, voxels of the volume that hold those of :meth:`reads`.
        origin
            Position of the first of them in the volume.
        """
        axes = zip(window, origin, self.halo, self.shape, strict=True)
        for axis, (span, start, around, length) in enumerate(axes):
            if span.start >= 0 and span.stop <= length:
                inside = slice(span.start - start, span.stop - start)
                values = values[(slice(None),) * axis + (inside,)]
            else:
                stop = min(span.stop, length + around)
                indices = np.pad(reflected(span.start, stop, length), (0, span.stop - stop), mode="edge")
                values = np.take(values, indices - start, axis=axis)
        return values


def reflected(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Return the voxels that stand for positions ``start`` to ``stop`` along an axis, mirrored at its ends.

    The first and the last voxel are not repeated, as with ``numpy.pad(mode="reflect")``, and an axis shorter
    than the reach is mirrored several times.
    """
    if length == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)


def lattice_of(shape: Shape3, spec: StudentSpec, planes: int = 1, classes: int = CLASSES) -> Lattice:
    """Return the lattice of a volume that takes the least time in the memory of a worker.

    Parameters
    ----------
    shape
        Of the volume, (z, y, x).
    spec
        The student's architecture.
    planes
        Planes that are predicted together by a student of planes, in one pass.
    classes
        Number of classes, which counts for the memory.
    """
    z_step, step, _ = spec.alignment
    longest = max(shape[1:])
    sides = range(STEP, min(LONGEST, _up(longest, STEP)) + 1, STEP)
    depths: list[int] | range = [planes]
    if spec.is_3d:
        deepest = min(DEEPEST, _up(shape[0], z_step))
        depths = range(max(z_step, min(8, deepest)), deepest + 1, max(z_step, 8))
    best: tuple[float, Shape3] | None = None
    for depth, side in product(depths, sides):
        cell = (depth, min(side, _up(shape[1], step)), min(side, _up(shape[2], step)))
        window = [c + 2 * around for c, around in zip(cell, spec.network_halo, strict=True)]
        smallest = side == STEP and depth == depths[0]
        if prod(window) * bytes_per_voxel(spec, classes) > WINDOW_BYTES and not smallest:
            continue
        count = prod(-(-length // c) for length, c in zip(shape, cell, strict=True))
        large = 4 * prod(window) * spec.widths[0] / prod(spec.stem) > LARGE_ARRAY
        cost = (count * prod(window) * (LARGE_COST if large else 1.0), cell)
        best = cost if best is None or cost < best else best
    assert best is not None
    return Lattice(shape, best[1], spec.halo)


def bytes_per_voxel(spec: StudentSpec, classes: int = CLASSES) -> float:
    """Return the memory of a prediction's intermediate results per voxel of its window."""
    width = max(spec.widths[0], 4) / prod(spec.stem)
    return 4 * max(2 * spec.channels + _LIVE * width, width + _LIVE * classes)


def least_memory(spec: StudentSpec, classes: int) -> float:
    """Return the memory in bytes of a prediction in the smallest window that a lattice may have."""
    cell = (spec.alignment[0], STEP, STEP)
    window = (side + 2 * around for side, around in zip(cell, spec.halo, strict=True))
    return prod(window) * bytes_per_voxel(spec, classes)


def planes_at_once(device: str) -> int:
    """Return the planes of a cell of a student of planes on a device, ``cpu`` or ``cuda``."""
    return GPU_PLANES if device == "cuda" else 1


def student_tiles(lattice: Lattice) -> TileSpec:
    """Return the tiles of a student's run: a tile has whole cells, and a block several of them in depth."""
    depth, height, width = lattice.cell
    z, around, _ = lattice.halo
    side = _up(max(height, width), STEP)
    count = max(1, BLOCK_VOXELS // (height * width) // max(depth, 1))
    whole = 2 ** (count.bit_length() - 1)
    planes = depth * min(whole, max(1, 64 // depth))
    core = _up(max(side, 2 * around), side)
    return TileSpec(core=core, overlap=around, blend=0, planes=planes, overlap_planes=z)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
