"""Describe the basins of a block, and the passes over which they meet: the graph that is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.crofton import pairs
from hrvol.analysis.separating.basins import unpack
from hrvol.arrays import Shape3
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, box_shape

_BLOCK = 32
"""Bits of the number of a basin in its block."""


@dataclass(frozen=True, eq=False)
class Basins:
    """The n basins of a block, and where they meet others.

    Attributes
    ----------
    block
        Number of the block.
    classes, peaks
        ``(n,)`` uint16: class and largest height of basins 1..n.
    sizes, firsts
        ``(n,)`` int64: voxels, and position of the first voxel in the volume, in C order.
    at_border
        ``(n,)`` bool: whether they reach a border of the volume.
    meets
        ``(m, 2)`` uint64: pairs of basins of one class that touch, as :func:`basin_key`; each pair once, the
        smaller first.
    passes
        ``(m,)`` uint16: height of the highest pass between the two.
    """

    block: int
    classes: NDArray[np.uint16]
    peaks: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    meets: NDArray[np.uint64]
    passes: NDArray[np.uint16]


def basin_key(block: NDArray[Any], number: NDArray[Any]) -> NDArray[np.uint64]:
    """Return what identifies a basin of a volume: its block in the upper 32 bits, its number in the lower."""
    return (block.astype(np.uint64) << np.uint64(_BLOCK)) | number.astype(np.uint64)


def split_key(key: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return block and number of :func:`basin_key`."""
    return (key >> np.uint64(_BLOCK)).astype(np.int64), key.astype(np.uint32).astype(np.int64)


def describe_basins(packed: NDArray[np.uint64], box: Box, core: Box, blocks: BlockGrid) -> Basins:
    """Describe the basins of a block.

    Parameters
    ----------
    packed
        ``(z, y, x)`` of :func:`hrvol.analysis.separating.basins.pack`.
    box, core
        What it covers: the block, and one voxel around it where the volume does not end.
    blocks
        All blocks.
    """
    numbers, heights, classes = unpack(packed)
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(core, box, strict=True))
    own, of_class, height = numbers[z, y, x], classes[z, y, x], heights[z, y, x]
    count = int(own.max(initial=0))
    flat = own.ravel()
    value, peaks = np.zeros((2, count + 1), np.uint16)
    value[flat] = of_class.ravel()
    np.maximum.at(peaks, flat, height.ravel())
    meets, passes = _passes(numbers, heights, classes, (box, core), blocks)
    index = tuple(span.start // side for span, side in zip(core, blocks.side, strict=True))
    return Basins(
        int(np.ravel_multi_index(index, blocks.counts)),
        value[1:],
        peaks[1:],
        np.bincount(flat, minlength=count + 1)[1:].astype(np.int64),
        _firsts(flat, core, blocks.shape, count)[1:],
        _at_border(own, core, blocks.shape, count)[1:],
        meets,
        passes,
    )


def _passes(
    numbers: NDArray[np.uint32],
    heights: NDArray[np.uint16],
    classes: NDArray[np.uint16],
    boxes: tuple[Box, Box],
    blocks: BlockGrid,
) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """Return the pairs of basins that touch, and the highest pass of each."""
    box, core = boxes
    of_block = np.ix_(*(np.arange(s.start, s.stop) // side for s, side in zip(box, blocks.side, strict=True)))
    z, y, x = of_block
    block = (z * blocks.counts[1] + y) * blocks.counts[2] + x
    found: list[NDArray[np.uint64]] = [np.empty((0, 2), np.uint64)]
    highs: list[NDArray[np.uint16]] = [np.empty(0, np.uint16)]
    for _, mine, other in pairs(box, core, directed=False):
        meet = (numbers[mine] > 0) & (classes[mine] == classes[other])
        meet &= (numbers[mine] != numbers[other]) | (block[mine] != block[other])
        if not meet.any():
            continue
        keys = [basin_key(block[part][meet], numbers[part][meet]) for part in (mine, other)]
        two = np.stack([np.minimum(*keys), np.maximum(*keys)], axis=1)
        low = np.minimum(heights[mine][meet], heights[other][meet])
        rows, values = highest(two, low)
        found.append(rows)
        highs.append(values)
    return highest(np.concatenate(found), np.concatenate(highs))


def highest(
    meets: NDArray[np.uint64], passes: NDArray[np.uint16]
) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """Return each pair once, with its highest pass; in order."""
    order = np.lexsort((passes, meets[:, 1], meets[:, 0]))
    meets, passes = meets[order], passes[order]
    last = np.ones(len(meets), np.bool_)
    last[:-1] = np.any(meets[1:] != meets[:-1], axis=1)
    return meets[last], passes[last]


def _firsts(flat: NDArray[np.uint32], core: Box, shape: Shape3, count: int) -> NDArray[np.int64]:
    """Return the position of the first voxel of each basin in the volume."""
    firsts = np.full(count + 1, np.iinfo(np.int64).max)
    present, places = np.unique(flat, return_index=True)
    local = np.unravel_index(places, box_shape(core))
    whole = [axis + span.start for axis, span in zip(local, core, strict=True)]
    firsts[present] = np.ravel_multi_index(whole, shape)
    return firsts


def _at_border(own: NDArray[np.uint32], core: Box, shape: Shape3, count: int) -> NDArray[np.bool_]:
    """Return which basins reach a border of the volume; an image has none along z."""
    reached = np.zeros(count + 1, np.bool_)
    for axis, (span, side) in enumerate(zip(core, shape, strict=True)):
        if side > 1 and span.start == 0:
            reached[np.take(own, 0, axis)] = True
        if side > 1 and span.stop == side:
            reached[np.take(own, -1, axis)] = True
    return reached


def counts_of(reports: Sequence[Basins]) -> NDArray[np.int64]:
    """Return the number of basins of each report."""
    return np.array([len(report.sizes) for report in reports], np.int64)
