"""Measure the objects of one block: whole numbers that add up to those of the volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hrvol.analysis.measuring.crofton import DIRECTIONS, crossings_of_components, pairs
from hrvol.analysis.measuring.shapes import SECOND
from hrvol.analysis.objects import Components
from hrvol.arrays import Shape3
from hrvol.engine.task import computing, configuration
from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.grid.tiling import Block, Box, around
from hrvol.volume.volume import Volume

MOMENTS = slice(0, 3), slice(3, 9), slice(9, 9 + len(DIRECTIONS))
"""Columns of the first and second moments, and of the crossings, among the sums of objects."""

_COMPACT = 500_000  # rows held before those of one object are added


@dataclass(frozen=True)
class ObjectsJob:
    """What a worker needs to measure the objects of any block: the volume of objects ``(Z, Y, X)``."""

    labels: Volume

    @property
    def origin(self) -> Shape3:
        """Voxel from which moments count: the middle, so that sums stay small."""
        z, y, x = (side // 2 for side in self.labels.shape)
        return z, y, x


@dataclass(frozen=True, eq=False)
class ObjectMeasures:
    """Measures of the objects of a block, or of several.

    Attributes
    ----------
    objects
        By number; sums are :data:`MOMENTS`.
    touching
        ``(m, 2)`` int64: pairs of objects that touch by faces, edges or corners, the smaller number first.
    """

    objects: Components
    touching: NDArray[np.int64]


def measure_object_block(block: Block) -> ObjectMeasures:
    """Measure the objects of a block; the task that engines hand to workers."""
    job: ObjectsJob = configuration()
    box = around(block.core, (1, 1, 1), job.labels.shape)
    values = job.labels.read(box)
    with computing():
        return measure_objects_of(values, box, block.core, job)


def measure_objects_of(values: NDArray[Any], box: Box, core: Box, job: ObjectsJob) -> ObjectMeasures:
    """Measure the objects of a block.

    Parameters
    ----------
    values
        Numbers of objects ``(z, y, x)`` of the box, 0 for none.
    box, core
        The block, and one voxel around it where the volume does not end.
    job
        What is measured.

    Raises
    ------
    InputError
        A number is negative, or above 2**63 - 1.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 2**63:
        raise InputError(
            f"{printable(job.labels.source, 500)}: found object {low if low < 0 else high}, expected numbers"
            " from 0 to 2^63 - 1"
        )
    near, names = _dense(values, low, high)
    count = len(names)
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(core, box, strict=True))
    inside = near[z, y, x]
    sizes, moments = _moments(inside, core, job.origin, count)
    boxes = np.tile(np.array([np.iinfo(np.int32).max] * 3 + [0] * 3, np.int32), (count, 1))
    for number, spans in enumerate(ndimage.find_objects(inside, count)):
        if spans is not None:
            shifted = [(s.start + c.start, s.stop + c.start) for s, c in zip(spans, core, strict=True)]
            boxes[number] = [start for start, _ in shifted] + [stop for _, stop in shifted]
    crossings = crossings_of_components(near, inside, box, core, count)
    table = Components(names, sizes, boxes, np.concatenate([moments, crossings], axis=1))
    return ObjectMeasures(table[sizes > 0], _touching(near, names, box, core))


def join_objects(reports: Iterable[ObjectMeasures]) -> ObjectMeasures:
    """Add up the measures of blocks, read one at a time; objects are in order of their numbers."""
    joiner = _Joiner()
    for report in reports:
        joiner.add(report)
    return joiner.joined()


def neighbours(measures: ObjectMeasures) -> NDArray[np.int64]:
    """Return how many others each object touches, in the order of the objects."""
    found = np.searchsorted(measures.objects.labels, measures.touching.ravel())
    return np.bincount(found, minlength=len(measures.objects.labels)).astype(np.int64)


@dataclass(eq=False)
class _Joiner:
    """Adds up tables; holds a few rows for each object."""

    tables: list[Components] = field(default_factory=list)
    touching: list[NDArray[np.int64]] = field(default_factory=list)
    limit: int = _COMPACT

    def add(self, report: ObjectMeasures) -> None:
        self.tables.append(report.objects)
        self.touching.append(report.touching)
        rows = sum(len(table.sizes) for table in self.tables) + sum(len(pair) for pair in self.touching)
        if rows > self.limit:
            joined = self.joined()
            self.tables, self.touching = [joined.objects], [joined.touching]
            self.limit = max(_COMPACT, 2 * (len(joined.objects.sizes) + len(joined.touching)))

    def joined(self) -> ObjectMeasures:
        whole = Components.concatenated(self.tables)
        _, group = np.unique(whole.labels, return_inverse=True)
        return ObjectMeasures(
            whole.merged(group) if len(group) else whole,
            np.unique(np.concatenate(self.touching), axis=0),
        )


def _dense(values: NDArray[Any], low: int, high: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return numbers from 1 in the order of the objects that occur, 0 for none, and their names."""
    if high - low <= 4 * values.size:  # a table is faster than sorting
        there = np.zeros(high + 1 - low, np.bool_)
        there[values.astype(np.int64) - low] = True
        names = np.flatnonzero(there) + low
        table = np.zeros(len(there), np.int32)
        table[names[names > 0] - low] = np.arange(1, np.count_nonzero(names) + 1)
        return table[values.astype(np.int64) - low], names[names > 0].astype(np.int64)
    names, inverse = np.unique(values, return_inverse=True)
    shift = int(names[0] != 0)
    return (inverse.reshape(values.shape) + shift).astype(np.int32), names[1 - shift :].astype(np.int64)


def _moments(
    inside: NDArray[np.int32], core: Box, origin: Shape3, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return voxels ``(n,)``, and ``(n, 9)`` first and second moments about an origin."""
    places = np.nonzero(inside)
    numbers = inside[places]
    sizes = np.bincount(numbers, minlength=count + 1)[1:].astype(np.int64)
    weighted = [places[axis].astype(np.float64) for axis in range(3)]
    # Sums over a block are exact in float64: positions in it are small.
    first = [np.bincount(numbers, weights, count + 1)[1:].astype(np.int64) for weights in weighted]
    shift = [span.start - at for span, at in zip(core, origin, strict=True)]
    columns = [first[axis] + shift[axis] * sizes for axis in range(3)]
    for a, b in SECOND:
        product = np.bincount(numbers, weighted[a] * weighted[b], count + 1)[1:].astype(np.int64)
        columns.append(product + shift[a] * first[b] + shift[b] * first[a] + shift[a] * shift[b] * sizes)
    return sizes, np.stack(columns, axis=1)


def _touching(near: NDArray[np.int32], names: NDArray[np.int64], box: Box, core: Box) -> NDArray[np.int64]:
    """Return the pairs of objects that touch, each pair of voxels seen by one block."""
    found = [np.empty(0, np.int64)]
    count = len(names) + 1
    for _, mine, other in pairs(box, core, directed=False):
        a, b = near[mine], near[other]
        meet = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a[meet], b[meet]), np.maximum(a[meet], b[meet])
        found.append(np.unique(low.astype(np.int64) * count + high))
    keys = np.unique(np.concatenate(found))
    return np.stack([names[keys // count - 1], names[keys % count - 1]], axis=1).reshape(-1, 2)
