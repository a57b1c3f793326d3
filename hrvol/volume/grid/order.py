"""List the blocks of a volume lazily, and order them for processing.

Neighbouring blocks read the same chunks of the input: windows of tiles overlap, chunks straddle blocks. Along
a Morton curve, neighbours in space are close in time at every scale, so a worker that processes a contiguous
range of the curve reads mostly from its cache.
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
from hrvol.errors import InputError
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import Block, Box, block_shape, intersection, tiles_of, whole, with_context

Spans = tuple[tuple[int, int], ...]

MOST_BLOCKS = 2**24
"""Most blocks of a run, whose states are in memory: 200 TB of voxels in blocks of the usual size."""

LAYERS_READ = 1.25
"""Blocks are ordered layer by layer if each plane is then read at most so many times on average."""


def check_blocks(source: str, shape: Shape3, tiles: TileSpec) -> None:
    """Raise an :class:`InputError` if a volume of this name and shape has too many blocks for one run."""
    count = len(BlockGrid(shape, tiles))
    if count > MOST_BLOCKS:
        raise InputError(
            f"{source}: found shape {shape}, {count:.2g} blocks, expected at most {MOST_BLOCKS:,}: crop the"
            " volume, or use larger tiles"
        )


def morton_order(
    counts: Shape3, ranges: Sequence[range] | None = None, *, layers: bool = False
) -> NDArray[np.int64]:
    """Return the blocks of a grid along a Morton (Z) curve.

    Parameters
    ----------
    counts
        Blocks per axis, (z, y, x); any numbers, not only powers of two.
    ranges
        Box of the grid to return, one range of blocks per axis; ``None`` is the whole grid.
    layers
        Finish one layer of blocks (all of one z) before the next: the curve runs in y and x only.

    Returns
    -------
    numpy.ndarray
        Int64, the flat (C-order) indices in the whole grid. Bits of z are the fastest, then those of x, then
        y: two blocks that share a deep chunk follow each other.
    """
    positions = _bit_positions(counts, layers)
    z, y, x = (
        np.arange(span.start, span.stop, dtype=np.int64) for span in ranges or [range(n) for n in counts]
    )
    codes = [_spread(values, bits) for values, bits in zip((z, y, x), positions, strict=True)]
    order = np.argsort(_outer(*codes))
    flat: NDArray[np.int64] = _outer(z * (counts[1] * counts[2]), y * counts[2], x)[order]
    return flat


@dataclass(frozen=True)
class BlockGrid(Sequence[Block]):
    """The blocks of a volume, computed on access: equal to ``tiling.blocks(shape, tiles)``, item by item.

    Attributes
    ----------
    shape
        Shape of the volume, (z, y, x) voxels.
    tiles
        Tiles of the recipe.
    chunks
        Voxels per chunk of the input, (z, y, x), ``None`` if unknown. Affects the order only.
    reach
        Voxels (z, y, x) around a block that are read even if no window of a tile has them.
    sides
        Voxels per axis of a block where they are not those of tiles: blocks have no context then.
    """

    shape: Shape3
    tiles: TileSpec
    chunks: Shape3 | None = None
    reach: Shape3 = (0, 0, 0)
    sides: Shape3 | None = None

    @property
    def side(self) -> Shape3:
        """Voxels per axis of a block that is not clipped by a border, (z, y, x)."""
        if self.sides is not None:
            z, y, x = (min(length, step) for length, step in zip(self.shape, self.sides, strict=True))
            return z, y, x
        return block_shape(self.shape, self.tiles)

    @property
    def counts(self) -> Shape3:
        """Blocks per axis, (z, y, x)."""
        z, y, x = (-(-length // step) for length, step in zip(self.shape, self.side, strict=True))
        return z, y, x

    @property
    def layers(self) -> bool:
        """Whether the order is layer by layer, because layers of blocks share almost no chunks.

        Most windows have no context in z. If chunks are no deeper than blocks, only neighbours in the plane
        share chunks then, and a curve in depth would only evict those from a cache.
        """
        if self.chunks is None:
            return False
        chunk, step, depth = self.chunks[0], self.side[0], self.shape[0]
        around = self.reach[0] if self.sides else max(self.tiles.overlap_planes, self.reach[0])
        starts = np.arange(0, depth, step)
        stops = np.minimum(starts + step + around, depth)
        starts = np.maximum(starts - around, 0)
        read = np.minimum(-(-stops // chunk) * chunk, depth) - starts // chunk * chunk
        return bool(read.sum() <= LAYERS_READ * depth)

    @property
    def shares_planes(self) -> bool:
        """Whether all blocks of a layer read the same chunks: planes, or most of them, are stored whole."""
        if self.chunks is None or not self.layers:
            return False
        sides = zip(self.chunks[1:], self.shape[1:], strict=True)
        return all(2 * chunk > length for chunk, length in sides)

    def layer_starts(self, numbers: NDArray[np.int64]) -> tuple[int, ...]:
        """Return the positions among blocks in order at which a layer begins, if its blocks share planes."""
        if not self.shares_planes:
            return ()
        layers = numbers // math.prod(self.counts[1:])
        return tuple((np.flatnonzero(np.diff(layers)) + 1).tolist())

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
        """Return the flat indices (int64) of all blocks in processing order: see :func:`morton_order`."""
        return self.inside(whole(self.shape))

    def inside(self, region: Box) -> NDArray[np.int64]:
        """Return the flat indices (int64) of the blocks that touch a region, in the order of :meth:`order`.

        Parameters
        ----------
        region
            Slices (z, y, x) with explicit bounds, in voxels; clipped to the volume.
        """
        ranges = [
            range(max(span.start, 0) // step, -(-min(span.stop, length) // step))
            if max(span.start, 0) < min(span.stop, length)
            else range(0)
            for span, length, step in zip(region, self.shape, self.side, strict=True)
        ]
        return morton_order(self.counts, ranges, layers=self.layers)

    def read_spans(self, region: Box | None = None) -> tuple[Spans, Spans, Spans]:
        """Return the voxels that blocks read, axis by axis: a block reads the product of three spans.

        Parameters
        ----------
        region
            Region of the volume that is computed; ``None`` is all of it.

        Returns
        -------
        tuple
            For z, y and x, in order, the spans (start, stop) of voxels read by each row of blocks that
            touches the region. In z a span is the core inside the region and its planes of context; in y and
            x it holds the windows of all tiles that contribute to the region; and along an axis with
            :attr:`reach` the whole core and what is around it.
        """
        region = whole(self.shape) if region is None else region
        spans: list[Spans] = []
        for axis, count in enumerate(self.counts):
            rows = (self._block(row * self._strides[axis]) for row in range(count))
            read = (_span(block, axis, region[axis], self) for block in rows)
            spans.append(tuple(span for span in read if span is not None))
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
    """Return the voxels that a block reads along an axis, or ``None`` if it does not touch the region."""
    box = list(block.core)
    box[axis] = region
    shared = intersection(block.core, (box[0], box[1], box[2]))
    if shared is None:
        return None
    own = (shared[axis].start, shared[axis].stop)
    start, stop = own if grid.sides else _tiles_span(block, axis, shared, grid)
    if around := grid.reach[axis]:
        start = max(min(start, block.core[axis].start - around), 0)
        stop = min(max(stop, block.core[axis].stop + around), grid.shape[axis])
    return start, stop


def _tiles_span(block: Block, axis: int, shared: Box, grid: BlockGrid) -> tuple[int, int]:
    """Return the voxels that the tiles of a block read along an axis for a box of it."""
    if axis == 0:
        planes = with_context(shared[0], grid.shape[0], grid.tiles)
        return planes.start, planes.stop
    near, far = 2 * (axis - 1), 2 * (axis - 1) + 1
    owned, computed = block.core[axis], shared[axis]
    windows = [
        (tile.window[near], tile.window[far])
        for tile in tiles_of(block, grid.shape[1:], grid.tiles)
        # Blending at faces inside the block extends a tile beyond its core.
        if max(tile.core[near] - tile.blend, owned.start) < computed.stop
        and min(tile.core[far] + tile.blend, owned.stop) > computed.start
    ]
    return min(start for start, _ in windows), max(stop for _, stop in windows)


def _bit_positions(counts: Shape3, layers: bool) -> tuple[list[int], list[int], list[int]]:
    """Return the positions of the bits of z, y and x in a block's Morton code, the lowest bit first."""
    bits = [(count - 1).bit_length() for count in counts]
    interleaved = [(axis, bit) for bit in range(max(bits)) for axis in (0, 2, 1) if bit < bits[axis]]
    if layers:
        interleaved.sort(key=lambda item: item[0] == 0)  # stable: bits of z are the highest
    positions: tuple[list[int], list[int], list[int]] = ([], [], [])
    for position, (axis, _) in enumerate(interleaved):
        positions[axis].append(position)
    return positions


def _spread(values: NDArray[np.int64], positions: Sequence[int]) -> NDArray[np.int64]:
    """Move bit ``i`` of each number to position ``positions[i]``."""
    spread = np.zeros_like(values)
    for bit, position in enumerate(positions):
        spread |= (values >> bit & 1) << position
    return spread


def _outer(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all sums of one value of each, in C order."""
    total: NDArray[np.int64] = (z[:, None, None] + y[:, None] + x).ravel()
    return total
