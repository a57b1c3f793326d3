"""What a run will read: how often chunks are decoded, and how much of the volume a mask leaves.

The caches of the workers are simulated, with sizes instead of chunks.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, intersection
from hrvol.volume.volume import Volume

MOST_VISITS = 150_000
"""Looks into a simulated cache; of a run that would take more, a part is simulated."""

_FINE = 16  # chunks are joined up to this part of a cache

_LOOKS = 64  # blocks whose part of a mask is looked at

_LOOK_S = 10.0  # seconds after which no other is


@dataclass(frozen=True)
class ReadForecast:
    """What a run decodes of its input.

    Attributes
    ----------
    decoded
        Bytes of chunks, in all.
    once
        Bytes if no chunk were decoded more than once.
    held
        Most bytes of them that a worker keeps.
    """

    decoded: int
    once: int
    held: int


def simulate_reads(
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    region: Box,
    itemsize: int,
    *,
    workers: int,
    capacity: int,
    most: int = MOST_VISITS,
) -> ReadForecast:
    """Work out what the caches of a run's workers decode and hold.

    Parameters
    ----------
    grid
        Of blocks; it knows the chunks of the input.
    numbers
        Blocks to do, in their order; each worker does a contiguous part.
    region
        What is computed.
    itemsize
        Bytes per voxel of the input.
    workers, capacity
        Number of caches, and bytes that one keeps.
    most
        Looks into caches after which a part of the run has to do for the whole.
    """
    if not len(numbers):
        return ReadForecast(0, 0, 0)
    axes = _chunk_axes(grid, region, itemsize, capacity)
    left = len(numbers) / len(grid.inside(region))
    once = round(math.prod(sum(axis.lengths) for axis in axes) * itemsize * left)
    sizes = [np.array([len(rows) for rows in axis.of_row.values()]) for axis in axes]
    visits = max(1, int(math.prod(float(size.mean()) for size in sizes)))
    if visits * len(numbers) <= most:
        runs = [_Cache(axes, itemsize, capacity) for _ in range(workers)]
        for cache, share in zip(runs, np.array_split(numbers, workers), strict=True):
            cache.read(grid, share)
        held = max(cache.most_held for cache in runs)
        return ReadForecast(sum(cache.decoded for cache in runs), once, held)
    count = max(8, most // visits)
    start = min(len(numbers) // (2 * workers), max(0, len(numbers) - count))
    sample = numbers[start : start + count]
    cache = _Cache(axes, itemsize, capacity)
    cache.read(grid, sample[: count // 4])
    cache.again = 0
    counted = sample[count // 4 :]
    cache.read(grid, counted)
    # Every chunk once, and as many again as in the part that was simulated.
    return ReadForecast(once + round(cache.again * len(numbers) / len(counted)), once, cache.most_held)


@dataclass(frozen=True)
class _ChunkAxis:
    """Chunks along an axis; those that the same blocks read are one.

    Attributes
    ----------
    lengths
        Voxels of each.
    uses
        Rows of blocks that read each.
    of_row
        The chunks that a row of blocks reads.
    """

    lengths: tuple[int, ...]
    uses: tuple[int, ...]
    of_row: dict[int, range]


def _chunk_axes(grid: BlockGrid, region: Box, itemsize: int, capacity: int) -> list[_ChunkAxis]:
    """Join chunks as far as no joint one is too large a part of the cache."""
    joined = [_chunk_axis(grid, axis, region, True) for axis in range(3)]
    for axis in range(3):
        if math.prod(max(found.lengths) for found in joined) * itemsize <= capacity / _FINE:
            break
        joined[axis] = _chunk_axis(grid, axis, region, False)
    return joined


def _chunk_axis(grid: BlockGrid, axis: int, region: Box, join: bool) -> _ChunkAxis:
    assert grid.chunks is not None
    side, length = grid.chunks[axis], grid.shape[axis]
    first_row = region[axis].start // grid.side[axis]
    spans = grid.read_spans(region)[axis]
    readers: dict[int, list[int]] = {}
    for row, (start, stop) in enumerate(spans, first_row):
        for chunk in range(start // side, -(-stop // side)):
            readers.setdefault(chunk, []).append(row)
    lengths: list[int] = []
    uses: list[int] = []
    member: dict[int, int] = {}
    before: list[int] | None = None
    for chunk in sorted(readers):
        if not join or readers[chunk] != before:
            lengths.append(0)
            uses.append(len(readers[chunk]))
        lengths[-1] += min((chunk + 1) * side, length) - chunk * side
        member[chunk], before = len(lengths) - 1, readers[chunk]
    of_row = {
        row: range(member[start // side], member[-(-stop // side) - 1] + 1)
        for row, (start, stop) in enumerate(spans, first_row)
    }
    return _ChunkAxis(tuple(lengths), tuple(uses), of_row)


_Key = tuple[int, int, int]


class _Cache:
    """Does what :class:`hrvol.volume.chunk_cache.ChunkCache` does, with sizes instead of chunks."""

    def __init__(self, axes: Sequence[_ChunkAxis], itemsize: int, capacity: int) -> None:
        self._axes, self._itemsize, self._capacity = axes, itemsize, capacity
        self._kept: OrderedDict[_Key, int] = OrderedDict()
        self._left: dict[_Key, int] = {}
        self._known: set[_Key] = set()
        self._held = 0
        self.decoded = self.again = self.most_held = 0

    def read(self, grid: BlockGrid, numbers: NDArray[np.int64]) -> None:
        """Read blocks, one after the other."""
        places = np.stack(np.unravel_index(numbers, grid.counts), axis=-1).tolist()
        for place in places:
            z, y, x = (axis.of_row[row] for axis, row in zip(self._axes, place, strict=True))
            keys = list(product(z, y, x))
            self._fetch([key for key in keys if not self._seen(key)])
            for key in keys:
                self._count(key)

    def _seen(self, key: _Key) -> bool:
        if key in self._kept:
            self._kept.move_to_end(key)
            return True
        return False

    def _fetch(self, keys: Sequence[_Key]) -> None:
        coming = {}
        for key in keys:
            size = (
                math.prod(axis.lengths[i] for axis, i in zip(self._axes, key, strict=True)) * self._itemsize
            )
            self.decoded += size
            if key in self._known:
                self.again += size
            self._known.add(key)
            if self._left.get(key, self._uses(key)) > 1 and self._reserve(size):
                coming[key] = size
        self._kept.update(coming)

    def _reserve(self, size: int) -> bool:
        if size > self._capacity:
            return False
        while self._held + size > self._capacity:
            if not self._kept:
                return False
            _, freed = self._kept.popitem(last=False)
            self._held -= freed
        self._held += size
        self.most_held = max(self.most_held, self._held)
        return True

    def _count(self, key: _Key) -> None:
        left = self._left.pop(key, None)
        left = (self._uses(key) if left is None else left) - 1
        if left > 0:
            self._left[key] = left
        elif key in self._kept:
            self._held -= self._kept.pop(key)

    def _uses(self, key: _Key) -> int:
        return math.prod(axis.uses[i] for axis, i in zip(self._axes, key, strict=True))


@dataclass(frozen=True)
class MaskSample:
    """What a mask leaves of blocks; all of them without one.

    Attributes
    ----------
    blocks, planes, voxels
        The share of blocks with any voxel of the mask, of the planes of all blocks that have any, and of the
        voxels of all blocks.
    seconds
        Per voxel, to read it.
    some
        Blocks that have any; ``None`` without a mask.
    count
        How many blocks were looked at.
    """

    blocks: float = 1.0
    planes: float = 1.0
    voxels: float = 1.0
    seconds: float = 0.0
    some: tuple[int, ...] | None = None
    count: int = 0


def look_at_mask(mask: Volume | None, grid: BlockGrid, todo: NDArray[np.int64], region: Box) -> MaskSample:
    """Read the mask of some blocks, spread evenly over those to do; of all of them, if they are few."""
    if mask is None or not len(todo):
        return MaskSample()
    began = time.monotonic()
    some: list[int] = []
    planes = voxels = 0
    seen = np.zeros(2, np.int64)
    count = 0
    # From coarse to fine, so that those seen are spread evenly whenever time is up.
    spread = sorted(range(min(_LOOKS, len(todo))), key=lambda i: int(f"{i:06b}"[::-1], 2))
    for i in spread:
        number = int(todo[(2 * i + 1) * len(todo) // (2 * len(spread))])
        part = intersection(grid[number].core, region)
        assert part is not None
        inside = mask.read(part) != 0
        planes += int(np.count_nonzero(inside.any(axis=(1, 2))))
        voxels += int(np.count_nonzero(inside))
        seen += (len(inside), inside.size)
        some += [number] * bool(inside.any())
        count += 1
        if time.monotonic() - began > _LOOK_S and some:
            break
    return MaskSample(
        blocks=len(some) / count,
        planes=planes / int(seen[0]),
        voxels=voxels / int(seen[1]),
        seconds=(time.monotonic() - began) / int(seen[1]),
        some=tuple(some),
        count=count,
    )
