"""Measure one block of labels: whole numbers that add up to those of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from hrvol.analysis.measuring.cells import CellPlan, sums_over
from hrvol.analysis.measuring.crofton import crossings, crossings_of_components
from hrvol.analysis.object_blocks import BlockObjects, label_block
from hrvol.arrays import Shape3
from hrvol.engine.task import computing, configuration
from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.grid.tiling import Block, Box, box_shape
from hrvol.volume.volume import Volume


@dataclass(frozen=True)
class MeasureJob:
    """What a worker needs to measure any block.

    Attributes
    ----------
    labels
        The labels ``(Z, Y, X)``.
    values
        Label values of the classes, in order; voxels of value 0 are not labelled unless 0 is among them.
    cells
        In which voxels are counted.
    lags
        Distances of the two-point correlation, in voxels, ascending.
    components
        Whether to label connected components.
    """

    labels: Volume
    values: tuple[int, ...]
    cells: CellPlan
    lags: tuple[int, ...]
    components: bool = True


@dataclass(frozen=True, eq=False)
class BlockMeasures:
    """Measures of one block; of K classes, and in the last column K of what is not labelled.

    Attributes
    ----------
    box
        The block.
    planes
        ``(z, K)`` int64: voxels in each plane.
    in_cells, first_cell
        ``(z, y, x, K)`` int64: voxels in the cells that the block meets, and the first of these.
    in_plane, first_in_plane
        ``(z, y, x, K)`` int64: voxels in the cells of each plane, and the first of these.
    crossings
        ``(13, K + 1, K + 1)`` int64, see :func:`hrvol.analysis.measuring.crofton.crossings`.
    euler
        ``(K,)`` int64: contributions to the Euler numbers.
    both, labelled
        ``(3, lags, K)`` and ``(3, lags)`` int64: pairs of voxels of one class, and of labelled ones, at each
        distance along (z, y, x).
    objects
        Components, by number of the class from 1; ``None``: not labelled.
    """

    box: Box
    planes: NDArray[np.int64]
    in_cells: NDArray[np.int64]
    first_cell: Shape3
    in_plane: NDArray[np.int64]
    first_in_plane: Shape3
    crossings: NDArray[np.int64]
    euler: NDArray[np.int64]
    both: NDArray[np.int64]
    labelled: NDArray[np.int64]
    objects: BlockObjects | None


def measure_block(block: Block) -> BlockMeasures:
    """Measure a block; the task that engines hand to workers."""
    job: MeasureJob = configuration()
    shape, reach = job.labels.shape, max(job.lags, default=0)
    box = _around(block.core, 1, max(reach, 1), shape)
    values = job.labels.read(box)
    with computing():
        return measure_labels_of(values, box, block.core, job)


def measure_labels_of(values: NDArray[Any], box: Box, core: Box, job: MeasureJob) -> BlockMeasures:
    """Measure a block of labels.

    Parameters
    ----------
    values
        Labels ``(z, y, x)`` of a box.
    box, core
        The box: the block, one voxel on its low sides, and on its high ones as many as the longest lag, as
        far as the volume goes.
    job
        What is measured.

    Raises
    ------
    InputError
        A label is of no class.
    """
    count, shape = len(job.values), job.labels.shape
    classes = class_numbers(values, job.values, job.labels.source)
    near = _around(core, 1, 1, shape)
    around, inside = classes[_within(near, box)], classes[_within(core, box)]
    planes, in_cells, in_plane = _counts(inside, core, job)
    low, high = (
        tuple(int(part) for part in parts)
        for parts in (
            [span.start > 0 for span in core],
            [span.stop < side for span, side in zip(core, shape, strict=True)],
        )
    )
    objects = None
    if job.components:
        extended = _around(core, 1, 0, shape)
        numbers = (classes[_within(extended, box)].astype(np.int32) + 1) % (count + 1)  # 0: not labelled
        z0, y0, x0 = (span.start for span in core)
        objects = label_block(
            numbers,
            (z0, y0, x0),
            _triple(low),
            range(1, count + 1),
            open_high=_triple(high),
            sums=partial(_sums, around, near, core),
        )
    both, labelled = _pairs(classes, box, core, job.lags, count)
    return BlockMeasures(
        core,
        planes,
        in_cells[0],
        in_cells[1],
        in_plane[0],
        in_plane[1],
        crossings(around, near, core, count + 1),
        _euler(classes[_within(_around(core, 1, 0, shape), box)], _triple(low), count),
        both,
        labelled,
        objects,
    )


def class_numbers(values: NDArray[Any], of_classes: Sequence[int], source: str) -> NDArray[np.uint8]:
    """Return the number of each voxel's class, 0..K-1, and K where it is not labelled.

    Raises
    ------
    InputError
        A label is of no class.
    """
    count, most = len(of_classes), max(of_classes)
    low, high = int(values.min()), int(values.max())
    numbers = np.full(most + 1, 255, np.uint8)
    numbers[0] = count
    numbers[list(of_classes)] = np.arange(count)
    if low >= 0 and high <= most:
        found: NDArray[np.uint8] = numbers[values]
        if int(found.max()) <= count:
            return found
        low = int(values[found > count][0])
    value = high if high > most else low
    raise InputError(f"{printable(source, 500)}: found label {value}, expected those of its classes")


def _counts(
    inside: NDArray[np.uint8], core: Box, job: MeasureJob
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], Shape3], tuple[NDArray[np.int64], Shape3]]:
    """Count the voxels of each class in planes, in cells, and in cells of planes."""
    (_, sy, sx), (py, px) = job.cells.sides, job.cells.in_plane
    z0, y0, x0 = (span.start for span in core)
    planes, cells, flat = [], [], []
    first, first_flat = (0, 0, 0), (0, 0, 0)
    for number in range(len(job.values)):
        mask = (inside == number).astype(np.int32)
        in_x, cx = sums_over(mask, 2, x0, sx)
        in_yx, cy = sums_over(in_x, 1, y0, sy)
        in_zyx, cz = sums_over(in_yx, 0, z0, job.cells.sides[0])
        planes.append(in_yx.sum(axis=(1, 2), dtype=np.int64))
        cells.append(in_zyx.astype(np.int64))
        in_px, fx = sums_over(mask, 2, x0, px)
        in_pyx, fy = sums_over(in_px, 1, y0, py)
        flat.append(in_pyx.astype(np.int64))
        first, first_flat = (cz, cy, cx), (z0, fy, fx)
    return np.stack(planes, -1), (np.stack(cells, -1), first), (np.stack(flat, -1), first_flat)


def _sums(
    around: NDArray[np.uint8], near: Box, core: Box, numbered: NDArray[Any], count: int
) -> NDArray[np.int64]:
    """Return of components 1..count sums of the positions (z, y, x), and crossings along 13 directions."""
    columns = []
    for axis, span in enumerate(core):
        lengths = np.moveaxis(numbered, axis, 0)
        total = np.zeros(count + 1, np.int64)
        for position, plane in enumerate(lengths, start=span.start):
            total += position * np.bincount(plane.ravel(), minlength=count + 1)
        columns.append(total[1:])
    of_directions = crossings_of_components(around, numbered, near, core, count)
    return np.concatenate([np.stack(columns, axis=1), of_directions], axis=1).astype(np.int64)


def _euler(extended: NDArray[np.uint8], low: Shape3, count: int) -> NDArray[np.int64]:
    """Return what a block contributes to the Euler number of each class, as a union of closed voxels.

    It is additive: that of a block and of the planes on its low sides, less those of these planes, which
    other blocks have counted; plus those of the lines that are subtracted twice, less those of the corner.
    """
    totals = np.zeros(count, np.int64)
    for subset in product(*((0, 1) if here else (0,) for here in low)):
        part = extended[tuple(slice(0, 1) if only else slice(None) for only in subset)]
        for number in range(count):
            mask = part == number
            if mask.any():
                totals[number] += (-1) ** sum(subset) * int(measure.euler_number(mask, connectivity=3))
    return totals


def _pairs(
    classes: NDArray[np.uint8], box: Box, core: Box, lags: Sequence[int], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pairs of voxels of one class, and of labelled ones, at each distance along each axis."""
    both = np.zeros((3, len(lags), count), np.int64)
    labelled = np.zeros((3, len(lags)), np.int64)
    inside = _within(core, box)
    for axis, (row, lag) in product(range(3), enumerate(lags)):
        own, other = list(inside), list(inside)
        stop = min(inside[axis].stop, classes.shape[axis] - lag)
        if stop <= inside[axis].start:
            continue
        own[axis] = slice(inside[axis].start, stop)
        other[axis] = slice(inside[axis].start + lag, stop + lag)
        a, b = classes[tuple(own)], classes[tuple(other)]
        labelled[axis, row] = np.count_nonzero((a < count) & (b < count))
        same = np.where(a == b, a, np.uint8(255))
        both[axis, row] = [np.count_nonzero(same == number) for number in range(count)]
    return both, labelled


def _around(core: Box, before: int, after: int, shape: Shape3) -> Box:
    z, y, x = (
        slice(max(span.start - before, 0), min(span.stop + after, side))
        for span, side in zip(core, shape, strict=True)
    )
    return z, y, x


def _within(inner: Box, outer: Box) -> Box:
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return z, y, x


def _triple(values: Sequence[int]) -> Shape3:
    z, y, x = values
    return z, y, x


def measured_voxels(block: Block) -> int:
    """Return the voxels of a block, for the progress."""
    z, y, x = box_shape(block.core)
    return z * y * x
