"""Count the voxels of classes in cells of a volume, and estimate how far fractions depend on where one looks.

The interval of a fraction is that of a block bootstrap: cells are drawn with replacement, as many as there
are, and the fractions of the draws are ordered. It is honest where cells are larger than the structure. Of
few cells the percentiles are moved outwards (the expanded percentile interval of Hesterberg 2015, What
teachers should know about the bootstrap, The American Statistician 69, 371).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from hrvol.arrays import Shape3, Spacing3

DRAWS = 1000
"""Draws of the bootstrap."""

LEVEL = 0.95
"""Share of the draws in an interval."""

ENOUGH = 30
"""Cells that an interval is made of, at least, if the side of cells is not stated."""

FEWEST = 8
"""Cells without which there is no interval, and no deviation."""

MOST_CELLS = 300_000

SMALLEST = 8
"""Voxels of the side of the smallest cells along x."""


@dataclass(frozen=True)
class CellPlan:
    """The cells of a volume.

    Attributes
    ----------
    shape
        Of the volume.
    sides
        Voxels (z, y, x) of the smallest cells.
    side
        How many of them are the side of a cell of intervals.
    in_plane
        Voxels (y, x) of the cells of single planes.
    """

    shape: Shape3
    sides: Shape3
    side: int
    in_plane: tuple[int, int]

    @property
    def counts(self) -> Shape3:
        """Number of the smallest cells along (z, y, x)."""
        z, y, x = (-(-length // side) for length, side in zip(self.shape, self.sides, strict=True))
        return z, y, x

    @property
    def plane_counts(self) -> Shape3:
        """Number of planes, and of their cells along (y, x)."""
        y, x = (-(-length // side) for length, side in zip(self.shape[1:], self.in_plane, strict=True))
        return self.shape[0], y, x


def plan_cells(shape: Shape3, voxel_size: Spacing3, stated: int | None) -> CellPlan:
    """Choose cells that are cubes in units of length.

    Parameters
    ----------
    shape, voxel_size
        Of the volume, (z, y, x).
    stated
        Voxels along x of the side of the cells of intervals; ``None``: the largest of which there are 30.
    """
    if stated is not None:
        divisor = next(n for n in (4, 2, 1) if stated % n == 0 and (stated // n >= 4 or n == 1))
        base, side = stated // divisor, divisor
        while math.prod(_counts(shape, _sides(shape, voxel_size, base))) > MOST_CELLS and side > 1:
            base, side = base * 2, side // 2
    else:
        base, side = SMALLEST, 1
        while math.prod(_counts(shape, _sides(shape, voxel_size, base))) > MOST_CELLS:
            base *= 2
        while math.prod(_counts(shape, _sides(shape, voxel_size, 2 * side * base))) >= ENOUGH:
            side *= 2
    sides = _sides(shape, voxel_size, base)
    plane = tuple(
        step * max(side, -(-length // (16 * step))) for step, length in zip(sides[1:], shape[1:], strict=True)
    )
    return CellPlan(shape, sides, side, (plane[0], plane[1]))


def sums_over(values: NDArray[Any], axis: int, start: int, side: int) -> tuple[NDArray[Any], int]:
    """Add up values over cells of an axis.

    Parameters
    ----------
    values
        Any array.
    axis
        Of the cells.
    start
        Position of the first value in the volume.
    side
        Values of a cell; cells begin at 0.

    Returns
    -------
    tuple
        The sums, and the number of the first cell.
    """
    first, last = start // side, (start + values.shape[axis] - 1) // side
    edges = [max(cell * side - start, 0) for cell in range(first, last + 1)]
    return np.add.reduceat(values, edges, axis=axis), first


def coarser(cells: NDArray[np.int64], times: int, *, whole: Shape3 | None = None) -> NDArray[np.int64]:
    """Return the counts of larger cells.

    Parameters
    ----------
    cells
        ``(z, y, x, classes)`` int64.
    times
        Cells along each axis of a larger one; along an axis with one cell, 1.
    whole
        Number of cells along (z, y, x) that are not cut by a border; larger cells are made of these only.
        ``None``: of all.
    """
    if whole is not None:
        cells = cells[: whole[0], : whole[1], : whole[2]]
    for axis in range(3):
        length = cells.shape[axis]
        step = 1 if length == 1 else times
        if whole is not None:
            length -= length % step
            cells = np.take(cells, np.arange(length), axis)
            if not length:
                return cells
        cells = np.add.reduceat(cells, np.arange(0, length, step), axis=axis)
    return cells


def intervals(
    counts: NDArray[np.int64], draws: NDArray[np.float64] | None = None, *, seed: int = 0
) -> NDArray[np.float64]:
    """Return the 95 % intervals of the fractions of classes, by a bootstrap over cells.

    Parameters
    ----------
    counts
        ``(cells, classes)`` int64: voxels of classes in each cell.
    draws
        Of :func:`draw_cells`, for all cells; ``None``: drawn here.
    seed
        Of the draws.

    Returns
    -------
    numpy.ndarray
        ``(classes, 2)`` float64: ends; NaN with fewer than 8 cells that hold labelled voxels.
    """
    if draws is None:
        counts = counts[counts.sum(axis=1) > 0]
    used = np.count_nonzero(counts.sum(axis=1))
    if used < FEWEST:
        return np.full((counts.shape[1], 2), np.nan)
    if draws is None:
        totals = np.stack([weights @ counts for weights in _weights(len(counts), seed)])
    else:
        totals = draws @ counts
    of_draws = totals.sum(axis=1, keepdims=True)
    fractions = totals / np.maximum(of_draws, 1)
    tail = norm.cdf(-math.sqrt(used / (used - 1)) * t.ppf((1 + LEVEL) / 2, used - 1))
    tails = [tail, 1 - tail]
    return np.asarray(np.quantile(fractions[of_draws[:, 0] > 0], tails, axis=0)).T


def draw_cells(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Return how often each of ``count`` cells is in each draw, ``(1000, count)`` float64."""
    return np.stack(list(_weights(count, seed))).astype(np.float64)


def deviations(cells: NDArray[np.int64], plan: CellPlan) -> Iterator[tuple[int, int, Sequence[float]]]:
    """Yield the deviation of fractions among cells, for growing cells (the representative-volume curve).

    Parameters
    ----------
    cells
        ``(z, y, x, classes)`` int64: voxels of classes in the smallest cells.
    plan
        Of the cells.

    Yields
    ------
    tuple
        Smallest cells along the side of a cell, number of cells that are mostly labelled, and the standard
        deviation of each class's fraction among them.
    """
    z, y, x = (max(length // side, 1) for length, side in zip(plan.shape, plan.sides, strict=True))
    voxels = math.prod(plan.sides)
    for times in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128):
        larger = coarser(cells, times, whole=(z, y, x))
        if not larger.size:
            return
        per_cell = math.prod(times if n > 1 else 1 for n in (z, y, x)) * voxels
        table = larger.reshape(-1, larger.shape[-1])
        labelled = table.sum(axis=1)
        table = table[2 * labelled >= per_cell]
        if len(table) < FEWEST:
            return
        fractions = table / table.sum(axis=1, keepdims=True)
        yield times, len(table), fractions.std(axis=0, ddof=1).tolist()


def _weights(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    for _ in range(DRAWS):
        yield np.bincount(generator.integers(count, size=count), minlength=count)


def _sides(shape: Shape3, voxel_size: Spacing3, base: int) -> Shape3:
    """Return the sides (z, y, x) of cells whose side along x is ``base`` voxels."""
    length = base * voxel_size[2]
    z, y, x = (min(max(round(length / size), 1), side) for size, side in zip(voxel_size, shape, strict=True))
    return z, y, x


def _counts(shape: Shape3, sides: Shape3) -> Shape3:
    z, y, x = (-(-length // side) for length, side in zip(shape, sides, strict=True))
    return z, y, x
