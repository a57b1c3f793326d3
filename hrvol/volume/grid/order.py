"""The blocks of a volume as a lazy sequence, and the order in which a run works through them.

Neighbouring blocks read the same chunks of the input: windows overlap, chunks straddle blocks. Along a Morton
curve neighbours in space are near in time, on every scale, so a worker that takes a contiguous part of the
curve finds most of what it reads in its cache.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import Block, Box, block_shape, intersection, tiles_of, whole

Spans = tuple[tuple[int, int], ...]

LAYERS_READ = 1.25
"""Blocks are ordered layer by layer if that, by itself, reads no plane more than so often on average."""


def morton_order(counts: Shape3, *, layers: bool = False) -> NDArray[np.int64]:
    """Return the blocks of a grid along a Morton (Z) curve.

    Parameters
    ----------
    counts
        Blocks per axis, (z, y, x); any numbers, not only powers of two.
    layers
        Finish one layer of blocks (all of one z) before the next: the curve runs in y and x only.

    Returns
    -------
    numpy.ndarray
        Int64, a permutation of the flat (C-order) indices of the grid. Bits of z are the fastest, then those
        of x, then y: two blocks that share a deep chunk follow each other.
    """
    return _along_curve([range(count) for count in counts], counts, layers)


@dataclass(frozen=True)
class BlockGrid(Sequence[Block]):
    """The blocks of a volume, made when asked for: equal to ``tiling.blocks(shape, tiles)``, item by item.

    Attributes
    ----------
    shape
        Of the volume, (z, y, x) voxels.
    tiles
        The recipe's tiles.
    chunks
        Voxels per chunk of the input, (z, y, x). It decides the order only. ``None`` if not known.
    """

    shape: Shape3
    tiles: TileSpec
    chunks: Shape3 | None = None

    @property
    def side(self) -> Shape3:
        """Voxels per axis of a block that no border cuts, (z, y, x)."""
        return block_shape(self.shape, self.tiles)

    @property
    def counts(self) -> Shape3:
        """Blocks per axis, (z, y, x)."""
        z, y, x = (-(-length // step) for length, step in zip(self.shape, self.side, strict=True))
        return z, y, x

    @property
    def layers(self) -> bool:
        """Whether the order is layer by layer, because layers of blocks share (next to) no chunks.

        Windows have no context in z, so with chunks no deeper than blocks only neighbours in the plane share
        any, and going deep would only push those out of a cache.
        """
        if self.chunks is None:
            return False
        chunk, step, depth = self.chunks[0], self.side[0], self.shape[0]
        starts = np.arange(0, depth, step)
        stops = np.minimum(starts + step, depth)
        read = np.minimum(-(-stops // chunk) * chunk, depth) - starts // chunk * chunk
        return bool(read.sum() <= LAYERS_READ * depth)

    def __len__(self) -> int:
        return math.prod(self.counts)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Block, ...]: ...
    def __getitem__(self, index: int | slice) -> Block | tuple[Block, ...]:
        """Return the block of a flat index (z slowest, x fastest), or those of a slice."""
        if isinstance(index, slice):
            return tuple(self._block(flat) for flat in range(len(self))[index])
        return self._block(range(len(self))[operator.index(index)])

    def order(self) -> NDArray[np.int64]:
        """Return the flat indices (int64) of all blocks in the order to work in: see :func:`morton_order`."""
        return self.inside(whole(self.shape))

    def inside(self, region: Box) -> NDArray[np.int64]:
        """Return the flat indices (int64) of the blocks that touch a region, in the order of :meth:`order`.

        Parameters
        ----------
        region
            Slices (z, y, x) with explicit bounds, in voxels; what is outside the volume is left out.
        """
        ranges = [
            range(max(span.start, 0) // step, -(-min(span.stop, length) // step))
            if max(span.start, 0) < min(span.stop, length)
            else range(0)
            for span, length, step in zip(region, self.shape, self.side, strict=True)
        ]
        return _along_curve(ranges, self.counts, self.layers)

    def read_spans(self, region: Box | None = None) -> tuple[Spans, Spans, Spans]:
        """Return what blocks read, axis by axis: a block reads the product of three of these spans.

        Parameters
        ----------
        region
            The part of the volume that is computed; ``None`` is all of it.

        Returns
        -------
        tuple
            For z, y and x the spans (start, stop) of voxels that the rows of blocks read, in order, those
            that touch the region only. In z they are the cores, inside the region; in y and x they hold the
            windows of the tiles that reach into it.
        """
        region = whole(self.shape) if region is None else region
        spans: list[Spans] = []
        for axis, count in enumerate(self.counts):
            rows = (self._block(row * self._strides[axis]) for row in range(count))
            found = (_span(block, axis, region[axis], self) for block in rows)
            spans.append(tuple(span for span in found if span is not None))
        z, y, x = spans
        return z, y, x

    @property
    def _strides(self) -> Shape3:
        _, y, x = self.counts
        return y * x, x, 1

    def _block(self, flat: int) -> Block:
        z, rest = divmod(flat, self._strides[0])
        y, x = divmod(rest, self._strides[1])
        core = tuple(
            slice(i * step, min((i + 1) * step, length))
            for i, step, length in zip((z, y, x), self.side, self.shape, strict=True)
        )
        return Block((z, y, x), (core[0], core[1], core[2]))


def _span(block: Block, axis: int, region: slice, grid: BlockGrid) -> tuple[int, int] | None:
    """Return what a block reads along an axis, or ``None`` if it does not touch the region."""
    part = list(block.core)
    part[axis] = region
    shared = intersection(block.core, (part[0], part[1], part[2]))
    if shared is None:
        return None
    if axis == 0:
        return shared[0].start, shared[0].stop
    near, far = 2 * (axis - 1), 2 * (axis - 1) + 1
    owned, wanted = block.core[axis], shared[axis]
    windows = [
        (tile.window[near], tile.window[far])
        for tile in tiles_of(block, grid.shape[1:], grid.tiles)
        # Blended over its faces inside the block, a tile counts beyond its core.
        if max(tile.core[near] - tile.blend, owned.start) < wanted.stop
        and min(tile.core[far] + tile.blend, owned.stop) > wanted.start
    ]
    return min(start for start, _ in windows), max(stop for _, stop in windows)


def _along_curve(ranges: Sequence[range], counts: Shape3, layers: bool) -> NDArray[np.int64]:
    """Return the flat indices of a box of a grid, ordered as by :func:`morton_order` of the whole grid."""
    places = _bit_places(counts, layers)
    axes = [np.arange(span.start, span.stop, dtype=np.int64) for span in ranges]
    codes = [_spread(values, at) for values, at in zip(axes, places, strict=True)]
    order = np.argsort(_outer(*codes))
    z, y, x = axes
    flat: NDArray[np.int64] = _outer(z * (counts[1] * counts[2]), y * counts[2], x)[order]
    return flat


def _bit_places(counts: Shape3, layers: bool) -> tuple[list[int], list[int], list[int]]:
    """Return where in a block's code the bits of its z, y and x go, the lowest bit first."""
    bits = [(count - 1).bit_length() for count in counts]
    woven = [(axis, bit) for bit in range(max(bits)) for axis in (0, 2, 1) if bit < bits[axis]]
    if layers:
        woven.sort(key=lambda item: item[0] == 0)  # stable: z behind, and so above, all others
    places: tuple[list[int], list[int], list[int]] = ([], [], [])
    for place, (axis, _) in enumerate(woven):
        places[axis].append(place)
    return places


def _spread(values: NDArray[np.int64], places: Sequence[int]) -> NDArray[np.int64]:
    """Move the bits of numbers to other places."""
    spread = np.zeros_like(values)
    for bit, place in enumerate(places):
        spread |= (values >> bit & 1) << place
    return spread


def _outer(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all sums of one value of each, in C order."""
    total: NDArray[np.int64] = (z[:, None, None] + y[:, None] + x).ravel()
    return total
