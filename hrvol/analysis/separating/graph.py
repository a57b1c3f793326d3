"""Describe the basins of a block, and the passes over which they meet: the graph that is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.analysis.measuring.crofton import DIRECTIONS, pairs
from hrvol.analysis.separating.basins import unpack
from hrvol.arrays import Shape3
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Box, box_shape

_BLOCK = 32
"""Bits of the number of a basin in its block."""


@dataclass(frozen=True, eq=False)
class Passes:
    """The m pairs of basins that touch, each once.

    Attributes
    ----------
    meets
        ``(m, 2)``: the two basins, the smaller number first.
    heights
        ``(m,)`` uint16: height of the highest pass between the two.
    places
        ``(m,)`` int64: where it is; passes of one height are in this order.
    """

    meets: NDArray[Any]
    heights: NDArray[np.uint16]
    places: NDArray[np.int64]

    @classmethod
    def concatenated(cls, several: Sequence[Passes]) -> Passes:
        """Return the highest pass of each pair of several tables."""
        meets, heights, places = (
            np.concatenate([getattr(one, name) for one in several]) for name in ("meets", "heights", "places")
        )
        return cls(meets, heights, places).highest()

    def __getitem__(self, rows: NDArray[Any]) -> Passes:
        """Return the rows that a mask or an index array selects."""
        return Passes(self.meets[rows], self.heights[rows], self.places[rows])

    def highest(self) -> Passes:
        """Return each pair once, with its highest pass, of equal ones the first; in order of the pairs."""
        order = np.lexsort((self.places, -self.heights.astype(np.int32), self.meets[:, 1], self.meets[:, 0]))
        ordered = self[order]
        first = np.ones(len(order), np.bool_)
        first[1:] = np.any(ordered.meets[1:] != ordered.meets[:-1], axis=1)
        return ordered[first]

    def from_the_highest(self) -> Passes:
        """Return the passes in the order in which they are opened."""
        return self[np.lexsort((self.places, -self.heights.astype(np.int32)))]


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
    passes
        Between basins of one class, as :func:`basin_key`.
    """

    block: int
    classes: NDArray[np.uint16]
    peaks: NDArray[np.uint16]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    passes: Passes


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
    value = np.zeros(count + 1, np.uint16)
    value[own.ravel()] = of_class.ravel()
    index = tuple(span.start // side for span, side in zip(core, blocks.side, strict=True))
    found = passes_of(basin_key(_block_of(box, blocks), numbers), heights, classes, (box, core), blocks.shape)
    return Basins(
        int(np.ravel_multi_index(index, blocks.counts)),
        value[1:],
        peaks_of(own, height, count)[1:],
        np.bincount(own.ravel(), minlength=count + 1)[1:].astype(np.int64),
        _firsts(own.ravel(), core, blocks.shape, count)[1:],
        _at_border(own, core, blocks.shape, count)[1:],
        found,
    )


def peaks_of(basins: NDArray[np.uint32], heights: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    """Return the largest height of basins 0..count."""
    peaks = np.zeros(count + 1, np.uint16)
    np.maximum.at(peaks, basins.ravel(), heights.ravel())
    return peaks


def passes_of(
    keys: NDArray[Any],
    heights: NDArray[np.uint16],
    classes: NDArray[np.uint16],
    boxes: tuple[Box, Box],
    shape: Shape3,
) -> Passes:
    """Return the highest pass of each two basins of one class that touch by faces, edges or corners.

    Parameters
    ----------
    keys
        Basin ``(z, y, x)`` of each voxel of a box.
    heights, classes
        Of the voxels; class 0 has no basins.
    boxes
        The box in the volume, and the part of it whose pairs with any voxel of the box count: each pair of
        voxels counts in the part that holds the first.
    shape
        Of the volume.
    """
    box, core = boxes
    found = [Passes(np.empty((0, 2), keys.dtype), np.empty(0, np.uint16), np.empty(0, np.int64))]
    for number, mine, other in pairs(box, core, directed=False):
        meet = (classes[mine] > 0) & (classes[mine] == classes[other]) & (keys[mine] != keys[other])
        if not meet.any():
            continue
        a, b = keys[mine][meet], keys[other][meet]
        at = [
            axis + span.start + around.start
            for axis, span, around in zip(np.nonzero(meet), mine, box, strict=True)
        ]
        places = np.ravel_multi_index(at, shape).astype(np.int64) * len(DIRECTIONS) + number
        low = np.minimum(heights[mine][meet], heights[other][meet])
        found.append(Passes(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1), low, places).highest())
    return Passes.concatenated(found)


def _block_of(box: Box, blocks: BlockGrid) -> NDArray[np.int64]:
    """Return the number of the block of each voxel of a box."""
    places = (np.arange(s.start, s.stop) // side for s, side in zip(box, blocks.side, strict=True))
    z, y, x = np.ix_(*places)
    return np.asarray((z * blocks.counts[1] + y) * blocks.counts[2] + x, np.int64)


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
