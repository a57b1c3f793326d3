"""Choose where the workers of a run keep decoded chunks, so that each chunk is decoded about once.

Blocks are as deep as some 64 planes, and a layer of blocks needs all of its planes until its last block is
read. Where planes are stored whole (images in a folder, compressed TIFF slices, chunks of HDF5 that are
planes), a worker has to keep a layer of decoded planes: in a scratch file where there is one, else in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrvol.progress import format_size
from hrvol.volume.chunk_cache import CAPACITY, ChunkCache
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box
from hrvol.volume.read_forecast import ReadForecast, simulate_reads
from hrvol.volume.volume import Volume

OFTEN = 1.3
"""Chunks that are decoded more often on average are worth more memory, or a scratch file."""

MEMORY_SHARE = 1 / 3
"""Share of the free memory that the workers of a machine take for decoded chunks, at most."""

_ROOM = 1.05  # of what is needed

_WORTH = 0.8
"""Largest ratio of decoded bytes with more memory to those with the usual one that is worth it."""

_VISITS = 60_000  # of a simulated cache


@dataclass(frozen=True)
class CachePlan:
    """Where a worker keeps decoded chunks.

    Attributes
    ----------
    capacity
        Most bytes of them.
    scratch
        Folder of the file that holds them; ``None``: they are in memory.
    decoded
        Forecast of how often each chunk is decoded on average; 0 where nothing is decoded.
    needed
        Bytes to keep so that each chunk is decoded about once, if the usual ones do not suffice.
    """

    capacity: int = CAPACITY
    scratch: str | None = None
    decoded: float = 1.0
    needed: int = 0

    def cache(self) -> ChunkCache:
        """Return an empty cache."""
        return ChunkCache(self.capacity, self.scratch)

    @property
    def enough(self) -> bool:
        """Whether chunks are decoded about once."""
        return self.decoded <= OFTEN

    def __str__(self) -> str:
        if not self.decoded:
            return "plain bytes: nothing is decoded"
        where = "memory" if self.scratch is None else self.scratch
        return (
            f"each chunk is decoded {self.decoded:.2f} times; a worker keeps up to"
            f" {format_size(self.capacity)} of them in {where}"
        )

    def hint(self, source: str) -> str | None:
        """Return what to do about chunks that are decoded often; ``None`` if they are not."""
        if self.enough or not self.needed:
            return None
        return (
            f"{source}: each chunk is decoded {self.decoded:.0f} times, because those of a layer of blocks"
            f" take {format_size(self.needed)} for each worker: --scratch DIR keeps them on a local disk"
        )


def plan_cache(
    volume: Volume,
    grid: BlockGrid,
    numbers: NDArray[np.int64],
    region: Box,
    *,
    workers: int,
    memory: int,
    scratch: str | None = None,
    usual: int = CAPACITY,
) -> CachePlan:
    """Choose where workers keep the chunks of a volume.

    Parameters
    ----------
    volume
        The input.
    grid, numbers, region
        Blocks of the run, those to compute in order, and the box of the volume that is computed.
    workers
        Number of workers.
    memory
        Bytes that a worker may take for chunks, where the usual ones do not suffice and there is no scratch
        file.
    scratch
        Folder for a scratch file; ``None``: none.
    usual
        Bytes of chunks that a worker always may keep.
    """
    if not volume.decodes or not len(numbers):
        return CachePlan(usual, decoded=1.0 if volume.decodes else 0.0)
    grid = replace(grid, chunks=volume.chunks)
    itemsize = volume.decoded_itemsize

    def simulate(capacity: int) -> ReadForecast:
        return simulate_reads(
            grid, numbers, region, itemsize, workers=workers, capacity=capacity, most=_VISITS
        )

    found = simulate(usual)
    plan = CachePlan(usual, None, _ratio(found))
    if plan.enough:
        return plan
    better = simulate(2**62)
    if _ratio(better) > _WORTH * plan.decoded:  # workers share layers: each decodes its planes
        return plan
    needed = int(better.held * _ROOM)
    if scratch is not None:
        return CachePlan(needed, scratch, _ratio(better), needed)
    if needed <= memory:
        return CachePlan(max(needed, usual), None, _ratio(better), needed)
    return replace(plan, needed=needed)


def _ratio(forecast: ReadForecast) -> float:
    return forecast.decoded / forecast.once if forecast.once else 1.0
