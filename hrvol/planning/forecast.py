"""Compute the cost of a run from its geometry and a few measured figures; arithmetic only.

Blocks are assigned to workers as the engines do it, so that the forecast is of the run and not of an ideal
one. A million blocks take about a second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.engine.scheduling import RangePartitioner
from hrvol.run.ledger import SEGMENT
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, Tile, tiles_of
from hrvol.volume.ome.pyramid import LevelPlan, Reduction

MOST_ASSIGNED = 5_000
"""Blocks up to which their assignment is simulated; with more, the last ones make no difference."""

ENTRY_BYTES = 320
"""Bytes of a block's entry in the ledger."""


@dataclass(frozen=True, eq=False)
class BlockSizes:
    """Sizes of n blocks, ``(n,)`` int64 each.

    Attributes
    ----------
    planes
        Planes of the block inside the region.
    tiles
        Tiles per plane that contribute to the block.
    pixels
        Pixels per plane of the block inside the region.
    classified
        Pixels per plane that are classified, summed over tiles: more than ``pixels`` where tiles are blended.
    """

    planes: NDArray[np.int64]
    tiles: NDArray[np.int64]
    pixels: NDArray[np.int64]
    classified: NDArray[np.int64]

    @property
    def voxels(self) -> NDArray[np.int64]:
        """Voxels of each block inside the region."""
        return self.planes * self.pixels

    def work(self, tile_share: float, pixels: int) -> NDArray[np.float64]:
        """Return the work of each block, in units of one plane of one tile.

        Parameters
        ----------
        tile_share
            Share of the unit's time that does not depend on the number of classified pixels, 0..1.
        pixels
            Classified pixels of the unit.
        """
        of_pixels = (1 - tile_share) * self.classified / pixels
        work: NDArray[np.float64] = self.planes * (tile_share * self.tiles + of_pixels)
        return work


def block_sizes(grid: BlockGrid, numbers: NDArray[np.int64], region: Box) -> BlockSizes:
    """Compute the sizes of blocks.

    Parameters
    ----------
    grid
        Grid of blocks.
    numbers
        Flat indices of blocks that touch the region.
    region
        Box of the volume that is computed.
    """
    z, y, x = np.unravel_index(numbers, grid.counts)
    depth = np.array([_shared(grid, 0, row, region) for row in range(grid.counts[0])], np.int64)
    columns = []
    for axis, rows in ((1, y), (2, x)):
        table = np.zeros((grid.counts[axis], 3), np.int64)
        for row in range(grid.counts[axis]):
            reach = [span.stop - span.start for _, span in tiles_along(grid, axis, row, region)]
            table[row] = len(reach), _shared(grid, axis, row, region), sum(reach)
        columns.append(table[rows].T)
    (tiles_y, height, reach_y), (tiles_x, width, reach_x) = columns
    return BlockSizes(depth[z], tiles_y * tiles_x, height * width, reach_y * reach_x)


def tiles_along(grid: BlockGrid, axis: int, row: int, region: Box) -> list[tuple[Tile, slice]]:
    """Return the tiles along an axis (1: y, 2: x) that contribute to the region, in one row of blocks.

    Returns
    -------
    list
        Pairs of a tile and the span of pixels (slice, in the plane) of the region that it contributes to.
    """
    index = [0, 0, 0]
    index[axis] = row
    block = grid[int(np.ravel_multi_index(index, grid.counts))]
    near, far = 2 * (axis - 1), 2 * (axis - 1) + 1
    other = 4 - 2 * axis  # where the other axis' core begins
    owned = block.core[axis]
    spans = []
    tiles = tiles_of(block, grid.shape[1:], grid.tiles)
    for tile in (tile for tile in tiles if tile.core[other] == tiles[0].core[other]):
        start = max(
            tile.core[near] - (tile.blend if tile.core[near] > owned.start else 0), region[axis].start
        )
        stop = min(tile.core[far] + (tile.blend if tile.core[far] < owned.stop else 0), region[axis].stop)
        if start < stop:
            spans.append((tile, slice(start, stop)))
    return spans


@dataclass(frozen=True)
class Piece:
    """One tile of a block, and the pixels that only this tile contributes to.

    Attributes
    ----------
    rows, columns
        The pixels, as slices in the plane.
    in_read
        The tile with its context, as slices of the array read for the block.
    tiles
        Number of tiles of a plane of the block.
    """

    rows: slice
    columns: slice
    in_read: tuple[slice, slice]
    tiles: int

    @property
    def pixels(self) -> int:
        """Number of these pixels."""
        pixels: int = (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)
        return pixels


def one_tile(grid: BlockGrid, block: Block, region: Box) -> Piece:
    """Return the tile of a block with most pixels that only it contributes to."""
    spans, inside, count = [], [], 1
    for axis in (1, 2):
        near, far = 2 * (axis - 1), 2 * (axis - 1) + 1
        tiles = tiles_along(grid, axis, block.index[axis], region)
        alone = []
        for i, (_, reach) in enumerate(tiles):
            start = max([reach.start, *(other.stop for _, other in tiles[:i])])
            stop = min([reach.stop, *(other.start for _, other in tiles[i + 1 :])])
            alone.append(slice(start, max(start, stop)))
        best = max(range(len(tiles)), key=lambda i: alone[i].stop - alone[i].start)
        origin = min(tile.window[near] for tile, _ in tiles)
        window = tiles[best][0].window
        spans.append(alone[best])
        inside.append(slice(window[near] - origin, window[far] - origin))
        count *= len(tiles)
    return Piece(spans[0], spans[1], (inside[0], inside[1]), count)


def _shared(grid: BlockGrid, axis: int, row: int, region: Box) -> int:
    """Return the number of voxels of a row of blocks inside the region, along an axis."""
    side, length, span = grid.side[axis], grid.shape[axis], region[axis]
    start, stop = int(span.start), int(span.stop)
    return max(0, min((row + 1) * side, length, stop) - max(row * side, start))


@dataclass(frozen=True)
class Pace:
    """Seconds that a worker takes for a unit of work while others compute too.

    Attributes
    ----------
    alone
        Seconds with one worker.
    together
        Seconds with ``workers`` workers; equal to ``alone`` if there is one.
    workers
        Number of workers measured together.
    busy
        Share of this machine's CPUs that one worker keeps busy, 0..1.
    """

    alone: float
    together: float
    workers: int
    busy: float

    def __call__(self, active: int) -> float:
        """Return the seconds with ``active`` workers; beyond all CPUs, they slow each other down."""
        if active <= self.workers:
            fraction = (active - 1) / (self.workers - 1) if self.workers > 1 else 1.0
            return self.alone + max(0.0, self.together - self.alone) * fraction
        slowest = max(self.alone, self.together)
        return slowest * max(1.0, active * self.busy) / max(1.0, self.workers * self.busy)


def makespan(work: NDArray[np.float64], workers: int, pace: Pace) -> float:
    """Return the seconds for all blocks, assigned to workers as in :mod:`hrvol.engine.scheduling`.

    Parameters
    ----------
    work
        ``(n,)`` work of the blocks in units, in their order.
    workers, pace
        Number and speed of the workers.
    """
    if not len(work):
        return 0.0
    workers = min(workers, len(work))
    if len(work) > MOST_ASSIGNED:
        return float(work.sum() / workers + work.max() / 2) * pace(workers)
    partitioner = RangePartitioner(len(work))
    partitioner.share_out(range(workers))
    queues: list[deque[int]] = [deque() for _ in range(workers)]
    for _ in range(2):  # one computes, one waits
        for worker in range(workers):
            _assign(partitioner, worker, queues[worker])
    remaining = np.array([work[queue[0]] if queue else np.inf for queue in queues])
    seconds = 0.0
    while np.isfinite(remaining).any():
        step = float(remaining.min())
        seconds += step * pace(int(np.isfinite(remaining).sum()))
        remaining -= step
        for worker in np.flatnonzero(remaining <= 0).tolist():
            queues[worker].popleft()
            _assign(partitioner, worker, queues[worker])
            remaining[worker] = work[queues[worker][0]] if queues[worker] else np.inf
    return seconds


def _assign(partitioner: RangePartitioner, worker: int, queue: deque[int]) -> None:
    number = partitioner.next(worker)
    if number is not None:
        queue.append(number)


def pyramid_seconds(
    levels: Sequence[LevelPlan], filled: float, full_s: float, empty_s: float, workers: int, pace: Pace
) -> float:
    """Return the seconds to compute coarser levels.

    Parameters
    ----------
    levels
        Levels of the labels; the other outputs have the same.
    filled
        Labelled share of the volume, 0..1.
    full_s, empty_s
        Seconds of one worker per voxel of the finer level, labelled and unlabelled.
    workers, pace
        The parts of each level are divided between workers; levels follow one after the other.
    """
    seconds = 0.0
    for plan in levels:
        finer = math.prod(plan.shape[plan.lead :]) * math.prod(plan.factor)
        at_once = min(workers, plan.parts)
        rounds = -(-plan.parts // at_once)
        per_part = finer / plan.parts * (filled * full_s + (1 - filled) * empty_s)
        seconds += rounds * per_part * pace(at_once) / pace(1)
    return seconds


def level_bytes(levels: Sequence[LevelPlan], voxels: float, per_voxel: float, raw: float) -> float:
    """Return the bytes of coarser levels as stored.

    Compressed labels take space at borders between classes, and a voxel twice as wide meets about twice as
    many: a level takes up to twice the bytes per voxel of the previous one.

    Parameters
    ----------
    levels
        Levels of the labels; the other outputs have the same.
    voxels
        Labelled voxels of the finest level.
    per_voxel, raw
        Bytes per voxel of the finest level of all outputs, as stored and in memory.
    """
    total, coarser = 0.0, 1
    for number, plan in enumerate(levels, 1):
        coarser *= math.prod(plan.factor)
        total += voxels / coarser * min(raw, per_voxel * 2**number)
    return total


def level_objects(levels: Sequence[LevelPlan], region: Box) -> int:
    """Return the number of shards of coarser levels that hold a region of the finest level."""
    count, coarser = 0, (1, 1, 1)
    for plan in levels:
        z, y, x = (a * b for a, b in zip(coarser, plan.factor, strict=True))
        coarser = (z, y, x)
        spatial = plan.shards[plan.lead :]
        spans = [
            (span.start // step, -(-span.stop // step))
            for span, step in zip(region[3 - len(spatial) :], coarser[3 - len(spatial) :], strict=True)
        ]
        rows = -(-plan.shape[0] // plan.shards[0]) if plan.lead else 1
        count += rows * math.prod(
            -(-stop // side) - start // side for (start, stop), side in zip(spans, spatial, strict=True)
        )
    return count


def ledger_objects(blocks: int, parts: int) -> int:
    """Return the number of objects that a run adds to a ledger, including that of its driver."""
    return 1 + -(-(blocks + parts) // SEGMENT)


def shard_bytes(plan: LevelPlan, reduction: Reduction, itemsize: int) -> int:
    """Return the memory in bytes to compute one shard of a coarser level.

    Parameters
    ----------
    plan
        The level.
    reduction
        How it is computed; ``mean`` is of uint8.
    itemsize
        Bytes per voxel of labels.
    """
    spatial = zip(plan.shards[plan.lead :], plan.shape[plan.lead :], strict=True)
    voxels = math.prod(min(side, length) for side, length in spatial)
    finer = math.prod(plan.factor)
    if reduction == "mode":
        return voxels * itemsize * (finer + 1)
    return voxels * (finer + (2 * plan.shards[0] if plan.lead else 1))
