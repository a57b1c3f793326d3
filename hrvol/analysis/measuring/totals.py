"""Add up the measures of blocks to those of a volume."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.block_measures import BlockMeasures, MeasureJob
from hrvol.analysis.measuring.crofton import DIRECTIONS
from hrvol.analysis.object_blocks import BlockObjects, join_components
from hrvol.analysis.objects import Components
from hrvol.arrays import Shape3


@dataclass(frozen=True, eq=False)
class Totals:
    """Measures of a volume with K classes, as in :class:`BlockMeasures`.

    Attributes
    ----------
    planes, in_cells, in_plane, crossings, euler, both, labelled
        Of all blocks.
    components
        Those of at least the least size, by class, falling size and box; ``None``: not labelled.
    found, largest
        ``(K,)`` int64: number of all components of each class, and voxels of the largest.
    percolating
        ``(3, K)`` int64: voxels of the components that reach both ends of the volume along (z, y, x).
    """

    planes: NDArray[np.int64]
    in_cells: NDArray[np.int64]
    in_plane: NDArray[np.int64]
    crossings: NDArray[np.int64]
    euler: NDArray[np.int64]
    both: NDArray[np.int64]
    labelled: NDArray[np.int64]
    components: Components | None
    found: NDArray[np.int64]
    largest: NDArray[np.int64]
    percolating: NDArray[np.int64]


@dataclass(eq=False)
class ComponentTotals:
    """Collects whole components; most of them are small, and only counted."""

    classes: int
    shape: Shape3
    least: int
    kept: list[Components] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = np.zeros(self.classes, np.int64)
        self.largest = np.zeros(self.classes, np.int64)
        self.percolating = np.zeros((3, self.classes), np.int64)

    def take(self, several: Components) -> None:
        """Add components."""
        single = several[several.labels > 0]
        numbers = single.labels - 1
        self.found += np.bincount(numbers, minlength=self.classes)
        np.maximum.at(self.largest, numbers, single.sizes)
        for axis, side in enumerate(self.shape):
            spans = (single.boxes[:, axis] == 0) & (single.boxes[:, axis + 3] == side)
            np.add.at(self.percolating[axis], numbers[spans], single.sizes[spans])
        self.kept.append(single[single.sizes >= self.least])

    def table(self) -> Components:
        """Return the components of at least the least size, in an order that depends on nothing else."""
        if not self.kept:
            empty = np.empty(0, np.int64)
            width = 3 + len(DIRECTIONS)
            return Components(empty, empty, np.empty((0, 6), np.int32), np.empty((0, width), np.int64))
        table = Components.concatenated(self.kept)
        boxes = table.boxes.T[::-1]
        sums = table.sums
        assert sums is not None
        order = np.lexsort((*sums.T[::-1], *boxes, -table.sizes, table.labels))
        return table[order]


def add_up(reports: Iterable[BlockMeasures], job: MeasureJob, least: int) -> Totals:
    """Add up the measures of all blocks, read one at a time.

    Parameters
    ----------
    reports
        Of every block, in any order.
    job
        What was measured.
    least
        Voxels of the smallest component of the table.
    """
    count, shape, plan = len(job.values), job.labels.shape, job.cells
    totals = Totals(
        np.zeros((shape[0], count), np.int64),
        np.zeros((*plan.counts, count), np.int64),
        np.zeros((*plan.plane_counts, count), np.int64),
        np.zeros((len(DIRECTIONS), count + 1, count + 1), np.int64),
        np.zeros(count, np.int64),
        np.zeros((3, len(job.lags), count), np.int64),
        np.zeros((3, len(job.lags)), np.int64),
        None,
        *(np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros((3, count), np.int64)),
    )

    def objects() -> Iterator[BlockObjects]:
        for report in reports:
            _add(totals, report)
            if report.objects is not None:
                yield report.objects

    if not job.components:
        for _ in objects():
            pass
        return totals
    collected = ComponentTotals(count, shape, least)
    join_components(objects(), collected.take)
    return replace(
        totals,
        components=collected.table(),
        found=collected.found,
        largest=collected.largest,
        percolating=collected.percolating,
    )


def _add(totals: Totals, report: BlockMeasures) -> None:
    """Add the arrays of a block."""
    totals.planes[report.box[0]] += report.planes
    for whole, part, first in (
        (totals.in_cells, report.in_cells, report.first_cell),
        (totals.in_plane, report.in_plane, report.first_in_plane),
    ):
        z, y, x = (slice(at, at + length) for at, length in zip(first, part.shape[:3], strict=True))
        whole[z, y, x] += part
    for name in ("crossings", "euler", "both", "labelled"):
        total: NDArray[np.int64] = getattr(totals, name)
        total += getattr(report, name)
