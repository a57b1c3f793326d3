"""Count classes and average uncertainty in planes, from the finest level that is small enough to be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.cells import CellPlan, coarser, intervals, plan_cells, sums_over
from hrvol.analysis.sizes import VoxelGrid
from hrvol.classes import ClassInfo
from hrvol.progress import ProgressCallback, Tally
from hrvol.report.view import View
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.volume import Volume

COUNTED_VOXELS = 2**28
"""Most voxels of labels that are counted."""

_IN_CELLS = 2**31  # most voxels times classes that are counted in cells

_AT_ONCE = 2**26  # voxels that are read at once, about

_APART = 12  # planes that are suggested are as far from each other as this part of the volume, at least


@dataclass(frozen=True, eq=False)
class PlaneShares:
    """Fractions of classes in planes.

    Attributes
    ----------
    positions
        ``(n,)`` float64: the middle of each plane, in planes of the finest level.
    fractions
        ``(n, K)`` float64 of the labelled voxels; NaN in planes without any.
    level
        That was counted; 0: every voxel.
    intervals
        ``(K, 2)`` float64: 95 % intervals of the fractions of all planes, as those of ``hrvol measure``;
        ``None``: not every voxel was counted, or cells are too few.
    cells
        Number of cells of the intervals, and their side along x in voxels.
    """

    positions: NDArray[np.float64]
    fractions: NDArray[np.float64]
    level: int
    intervals: NDArray[np.float64] | None = None
    cells: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class PlaneDoubt:
    """Mean uncertainty in planes.

    Attributes
    ----------
    positions
        ``(n,)`` float64: the middle of each plane, in planes of the finest level.
    means
        ``(n,)`` float64 in 0..1, of the labelled voxels; NaN in planes without any.
    level
        That was read.
    mean
        Of all labelled voxels.
    """

    positions: NDArray[np.float64]
    means: NDArray[np.float64]
    level: int
    mean: float

    def highest(self, count: int) -> list[int]:
        """Return up to ``count`` planes of the finest level with the highest means, apart from each other."""
        order = np.argsort(-np.nan_to_num(self.means, nan=-1.0), kind="stable")
        apart = max(1.0, (self.positions[-1] - self.positions[0]) / _APART)
        found: list[float] = []
        for number in order.tolist():
            position = float(self.positions[number])
            if math.isnan(self.means[number]) or len(found) == count:
                break
            if all(abs(position - other) >= apart for other in found):
                found.append(position)
        return [int(position) for position in found]


def count_planes(
    view: View, classes: Sequence[ClassInfo], seed: int, progress: ProgressCallback | None = None
) -> PlaneShares | None:
    """Count the classes in each plane of the box of a view; ``None`` if no level is small enough.

    Parameters
    ----------
    view
        Of the labels.
    classes
        In order of value.
    seed
        Of the draws of intervals.
    progress
        Called with the stage, voxels done and the total.
    """
    level = _counted_level(view)
    if level is None:
        return None
    volume, box = view.levels[level], view.box_at(level)
    voxels = math.prod(box_shape(box))
    every = level == 0 and voxels * len(classes) <= _IN_CELLS
    plan = plan_cells(volume.shape, VoxelGrid.of(volume).voxel_size, None)
    cells = np.zeros((*plan.counts, len(classes)) if every else (0,), np.int64)
    numbers = [info.value for info in classes]
    planes = np.zeros((box[0].stop - box[0].start, len(classes)), np.int64)
    tally = Tally(progress, "count classes", voxels)
    for piece in _slabs(volume, box):
        values = volume.read(piece)
        for row, plane in enumerate(values, start=piece[0].start - box[0].start):
            planes[row] = np.bincount(plane.ravel(), minlength=max(numbers) + 1)[numbers]
        for number, info in enumerate(classes if every else ()):
            _add_cells(cells[..., number], values == info.value, piece, plan)
        tally.finish(piece[0].start, values.size)
    totals = planes.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        fractions = planes / totals
    at = _middles(box[0], view.levels[0].shape[0] / volume.shape[0])
    if not every:
        return PlaneShares(at, fractions, level)
    larger = coarser(cells, plan.side).reshape(-1, len(classes))
    ends = intervals(larger, seed=seed)
    known = ends if np.isfinite(ends).all() else None
    return PlaneShares(at, fractions, level, known, (len(larger), plan.side * plan.sides[2]))


def average_planes(view: View, labels: View, progress: ProgressCallback | None = None) -> PlaneDoubt | None:
    """Average the uncertainty of labelled voxels in each plane; ``None`` if no level is small enough.

    Parameters
    ----------
    view
        Of the uncertainty, 0..255.
    labels
        Of the labels, with the same box.
    progress
        Called with the stage, voxels done and the total.
    """
    level = _counted_level(view)
    if level is None or level >= len(labels.levels):
        return None
    volume, beside, box = view.levels[level], labels.levels[level], view.box_at(level)
    depth = box[0].stop - box[0].start
    sums, counts = np.zeros(depth, np.int64), np.zeros(depth, np.int64)
    tally = Tally(progress, "average uncertainty", math.prod(box_shape(box)))
    for piece in _slabs(volume, box):
        labelled = beside.read(piece) != 0
        values = volume.read(piece)
        rows = slice(piece[0].start - box[0].start, piece[0].stop - box[0].start)
        counts[rows] += np.count_nonzero(labelled, axis=(1, 2))
        sums[rows] += np.where(labelled, values, 0).sum(axis=(1, 2), dtype=np.int64)
        tally.finish(piece[0].start, values.size)
    if not counts.any():
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts / 255
    at = _middles(box[0], view.levels[0].shape[0] / volume.shape[0])
    return PlaneDoubt(at, means, level, float(sums.sum() / counts.sum() / 255))


def coarse_labels(view: View, most: int) -> tuple[NDArray[Any], tuple[float, float, float]] | None:
    """Return the box of a view at a level with at most so many voxels, and its voxel size (z, y, x).

    Labels without a level as coarse as that are read in steps, if they are small enough to be read at all.
    """
    level = next(
        (
            number
            for number in range(len(view.levels))
            if math.prod(box_shape(view.box_at(number))) <= most or number == len(view.levels) - 1
        ),
        0,
    )
    box = view.box_at(level)
    if math.prod(box_shape(box)) > COUNTED_VOXELS:
        return None
    step = math.ceil((math.prod(box_shape(box)) / most) ** (1 / 3) - 1e-9)
    volume = view.levels[level]
    parts = [
        volume.read(piece)[-piece[0].start % step :: step, ::step, ::step] for piece in _slabs(volume, box)
    ]
    values = np.concatenate([part for part in parts if part.size])
    z, y, x = (length / side for length, side in zip(view.lengths, values.shape, strict=True))
    return values, (z, y, x)


def _counted_level(view: View) -> int | None:
    """Return the finest level that is small enough to be read as a whole."""
    for level in range(len(view.levels)):
        if math.prod(box_shape(view.box_at(level))) <= COUNTED_VOXELS:
            return level
    return None


def _slabs(volume: Volume, box: Box) -> Iterator[Box]:
    """Yield parts of a box, cut along z where chunks begin."""
    depth = min(volume.chunks[0], volume.shape[0])
    per_layer = depth * math.prod(side.stop - side.start for side in box[1:])
    step = depth * max(1, _AT_ONCE // per_layer)
    start = box[0].start
    while start < box[0].stop:
        stop = min((start // step + 1) * step, box[0].stop)
        yield slice(start, stop), box[1], box[2]
        start = stop


def _add_cells(cells: NDArray[np.int64], mask: NDArray[np.bool_], box: Box, plan: CellPlan) -> None:
    """Add the voxels of a class in a box to those of the cells of the volume."""
    sums: NDArray[Any] = mask.astype(np.int32)
    first = [0, 0, 0]
    for axis in (2, 1, 0):
        sums, first[axis] = sums_over(sums, axis, box[axis].start, plan.sides[axis])
    z, y, x = (slice(start, start + side) for start, side in zip(first, sums.shape, strict=True))
    cells[z, y, x] += sums


def _middles(span: slice, factor: float) -> NDArray[np.float64]:
    return (np.arange(span.start, span.stop) + 0.5) * factor - 0.5
