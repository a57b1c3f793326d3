"""Forecast how often the chunks of an input are decoded, and how many bytes of them are kept.

The caches of the workers are simulated with the sizes of chunks instead of their contents.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import even_edges
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box

MOST_VISITS = 150_000
"""Lookups in a simulated cache; if a run needs more, only some of its blocks are simulated."""

_JOINED = 16  # joined chunks fill at most 1/16 of a cache


@dataclass(frozen=True)
class ReadForecast:
    """Bytes of input that a run decodes.

    Attributes
    ----------
    decoded
        Bytes of all chunks decoded.
    once
        Bytes if each chunk were decoded once.
    held
        Peak bytes of chunks that a worker caches.
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
    """Simulate what the caches of a run's workers decode and hold.

    Parameters
    ----------
    grid
        The blocks and the chunks of the input.
    numbers
        Flat indices of the blocks to compute, in order; each worker gets a contiguous range.
    region
        Box of the volume that is computed.
    itemsize
        Bytes per voxel of the input.
    workers, capacity
        Number of caches, and the capacity of each in bytes.
    most
        Lookups in caches above which only some blocks are simulated and the result is extrapolated.
    """
    if not len(numbers):
        return ReadForecast(0, 0, 0)
    axes = _chunk_axes(grid, region, itemsize, capacity)
    fraction = len(numbers) / len(grid.inside(region))
    once = round(math.prod(sum(axis.lengths) for axis in axes) * itemsize * fraction)
    sizes = [np.array([len(rows) for rows in axis.of_row.values()]) for axis in axes]
    visits = max(1, int(math.prod(float(size.mean()) for size in sizes)))
    if visits * len(numbers) <= most:
        caches = [_Cache(axes, itemsize, capacity) for _ in range(workers)]
        edges = even_edges(len(numbers), workers, grid.layer_starts(numbers))  # as the engines share them out
        for cache, start, stop in zip(caches, edges, edges[1:], strict=False):
            cache.read(grid, numbers[start:stop])
        held = max(cache.most_held for cache in caches)
        return ReadForecast(sum(cache.decoded for cache in caches), once, held)
    count = max(8, most // visits)
    start = min(len(numbers) // (2 * workers), max(0, len(numbers) - count))
    if grid.layers:  # from the first block of a layer: chunks of a layer that is begun would stay
        starts = np.flatnonzero(np.diff(numbers // math.prod(grid.counts[1:]), prepend=-1))
        start = int(starts[np.searchsorted(starts, start, "right") - 1])
    sample = numbers[start : start + count]
    cache = _Cache(axes, itemsize, capacity)
    cache.read(grid, sample[: count // 4])
    cache.again = 0
    counted = sample[count // 4 :]
    cache.read(grid, counted)
    # Every chunk once, plus repeats in proportion to the simulated blocks.
    return ReadForecast(once + round(cache.again * len(numbers) / len(counted)), once, cache.most_held)


@dataclass(frozen=True)
class _ChunkAxis:
    """Chunks along an axis; those that the same blocks read are joined.

    Attributes
    ----------
    lengths
        Voxels of each.
    uses
        Number of rows of blocks that read each.
    of_row
        Range of chunks that each row of blocks reads.
    """

    lengths: tuple[int, ...]
    uses: tuple[int, ...]
    of_row: dict[int, range]


def _chunk_axes(grid: BlockGrid, region: Box, itemsize: int, capacity: int) -> list[_ChunkAxis]:
    """Join chunks along each axis unless that makes them too large for the cache."""
    joined = [_chunk_axis(grid, axis, region, True) for axis in range(3)]
    for axis in range(3):
        if math.prod(max(chunks.lengths) for chunks in joined) * itemsize <= capacity / _JOINED:
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
        self._remaining_uses: dict[_Key, int] = {}
        self._decoded_keys: set[_Key] = set()
        self._held = 0
        self.decoded = self.again = self.most_held = 0

    def read(self, grid: BlockGrid, numbers: NDArray[np.int64]) -> None:
        """Read blocks, one after the other."""
        indices = np.stack(np.unravel_index(numbers, grid.counts), axis=-1).tolist()
        for index in indices:
            z, y, x = (axis.of_row[row] for axis, row in zip(self._axes, index, strict=True))
            keys = list(product(z, y, x))
            self._fetch([key for key in keys if not self._hit(key)])
            for key in keys:
                self._count_use(key)

    def _hit(self, key: _Key) -> bool:
        if key in self._kept:
            self._kept.move_to_end(key)
            return True
        return False

    def _fetch(self, keys: Sequence[_Key]) -> None:
        cached = {}
        for key in keys:
            size = (
                math.prod(axis.lengths[i] for axis, i in zip(self._axes, key, strict=True)) * self._itemsize
            )
            self.decoded += size
            if key in self._decoded_keys:
                self.again += size
            self._decoded_keys.add(key)
            if self._remaining_uses.get(key, self._uses(key)) > 1 and self._reserve(size):
                cached[key] = size
        self._kept.update(cached)

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

    def _count_use(self, key: _Key) -> None:
        remaining = self._remaining_uses.pop(key, None)
        remaining = (self._uses(key) if remaining is None else remaining) - 1
        if remaining > 0:
            self._remaining_uses[key] = remaining
        elif key in self._kept:
            self._held -= self._kept.pop(key)

    def _uses(self, key: _Key) -> int:
        return math.prod(axis.uses[i] for axis, i in zip(self._axes, key, strict=True))
