"""Sample which share of the blocks, planes and voxels of a run a mask covers."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, intersection
from hrvol.volume.volume import Volume

_MASK_BLOCKS = 64  # blocks in which a mask is sampled

_MASK_S = 10.0  # seconds after which sampling ends


@dataclass(frozen=True)
class MaskSample:
    """Shares of blocks, planes and voxels inside a mask, from a sample of blocks; 1 without a mask.

    Attributes
    ----------
    blocks, planes, voxels
        Share (0..1) of the blocks, of their planes, and of their voxels that are inside the mask, at least
        with one voxel.
    seconds
        Seconds per voxel to read the mask.
    numbers
        Flat indices of the sampled blocks with voxels inside; ``None`` without a mask.
    count
        Number of blocks sampled.
    """

    blocks: float = 1.0
    planes: float = 1.0
    voxels: float = 1.0
    seconds: float = 0.0
    numbers: tuple[int, ...] | None = None
    count: int = 0


def sample_mask(mask: Volume | None, grid: BlockGrid, pending: NDArray[np.int64], region: Box) -> MaskSample:
    """Read the mask in evenly spread blocks of those to compute, or in all of them if they are few."""
    if mask is None or not len(pending):
        return MaskSample()
    began = time.monotonic()
    inside_numbers: list[int] = []
    planes = voxels = 0
    sampled = np.zeros(2, np.int64)  # planes, voxels
    count = 0
    # From coarse to fine, so that the sample is spread evenly whenever time is up.
    spread = sorted(range(min(_MASK_BLOCKS, len(pending))), key=lambda i: int(f"{i:06b}"[::-1], 2))
    for i in spread:
        number = int(pending[(2 * i + 1) * len(pending) // (2 * len(spread))])
        box = intersection(grid[number].core, region)
        assert box is not None
        inside = mask.read(box) != 0
        planes += int(np.count_nonzero(inside.any(axis=(1, 2))))
        voxels += int(np.count_nonzero(inside))
        sampled += (len(inside), inside.size)
        inside_numbers += [number] * bool(inside.any())
        count += 1
        if time.monotonic() - began > _MASK_S and inside_numbers:
            break
    return MaskSample(
        blocks=len(inside_numbers) / count,
        planes=planes / int(sampled[0]),
        voxels=voxels / int(sampled[1]),
        seconds=(time.monotonic() - began) / int(sampled[1]),
        numbers=tuple(inside_numbers),
        count=count,
    )
