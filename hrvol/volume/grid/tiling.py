"""Divide a volume into blocks, and the planes of a block into tiles.

A *block* is the unit of work and of storage: it equals one shard of the output, and has one writer. A
*tile* is the input of the featuriser: a square window of one plane, of which the tile owns the core. Windows
have one size per volume, because features depend on the size of the window; at a border the window is moved
inwards, not clipped. Between two tiles of one block, predictions are blended.

All boxes are ``(z, y, x)`` tuples of slices with explicit bounds, in voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec

Box = tuple[slice, slice, slice]

Rectangle = tuple[int, int, int, int]

CHUNK_SIDE = 64
"""Target side of the inner chunks of a shard, in voxels."""


@dataclass(frozen=True)
class Block:
    """The voxels that one task owns.

    Attributes
    ----------
    index
        Position in the grid of blocks (z, y, x); also that of the shard.
    core
        The voxels that the block owns, inside the volume.
    """

    index: Shape3
    core: Box

    @property
    def shape(self) -> Shape3:
        """Voxels per axis, (z, y, x)."""
        return box_shape(self.core)


@dataclass(frozen=True)
class Tile:
    """A window of a plane and the pixels that it owns.

    Attributes
    ----------
    core
        Owned pixels (y0, y1, x0, x1), in coordinates of the plane.
    window
        Pixels to read (y0, y1, x0, x1): the core and at least ``overlap`` pixels around it, unless the plane
        ends before.
    overlap
        Pixels of context around the core.
    blend
        Half-width in pixels of the ramp that blends two tiles of a block.
    """

    core: Rectangle
    window: Rectangle
    overlap: int
    blend: int

    @property
    def window_shape(self) -> tuple[int, int]:
        """Pixels of the window, (y, x)."""
        y0, y1, x0, x1 = self.window
        return y1 - y0, x1 - x0

    @property
    def window_slices(self) -> tuple[slice, slice]:
        """The window as slices of the plane."""
        y0, y1, x0, x1 = self.window
        return slice(y0, y1), slice(x0, x1)

    @property
    def core_slices(self) -> tuple[slice, slice]:
        """The core as slices of the plane."""
        y0, y1, x0, x1 = self.core
        return slice(y0, y1), slice(x0, x1)

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        """The core as slices of the window."""
        y0, y1, x0, x1 = self.core
        top, _, left, _ = self.window
        return slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)


def box_shape(box: Box) -> Shape3:
    """Return the number of voxels per axis, (z, y, x)."""
    z, y, x = box
    return z.stop - z.start, y.stop - y.start, x.stop - x.start


def whole(shape: Shape3) -> Box:
    """Return the box that holds a whole volume of this shape."""
    z, y, x = shape
    return slice(0, z), slice(0, y), slice(0, x)


def intersection(a: Box, b: Box) -> Box | None:
    """Return the box that two boxes share, or ``None`` if they do not overlap."""
    z, y, x = (slice(max(p.start, q.start), min(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    shared = (z, y, x)
    return shared if min(box_shape(shared)) > 0 else None


def around(core: Box, reach: Shape3, shape: Shape3) -> Box:
    """Return a box with so many voxels around it, inside a volume."""
    z, y, x = (
        slice(max(span.start - more, 0), min(span.stop + more, side))
        for span, more, side in zip(core, reach, shape, strict=True)
    )
    return z, y, x


def hull(a: Box, b: Box) -> Box:
    """Return the smallest box that holds two boxes."""
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def window_side(plane_side: int, tiles: TileSpec) -> int:
    """Return the side of every window along an axis of the plane, in pixels."""
    return min(plane_side, tiles.core + 2 * tiles.overlap)


def core_side(plane_side: int, tiles: TileSpec) -> int:
    """Return the side of a core along an axis of the plane, in pixels.

    A plane no longer than one window has one core as long as itself: several cores would all read the same
    window and compute the same features.
    """
    return plane_side if plane_side <= tiles.core + 2 * tiles.overlap else tiles.core


def block_shape(shape: Shape3, tiles: TileSpec) -> Shape3:
    """Return the shape (z, y, x) of a block that is not clipped by a border; at most that of the volume."""
    depth, height, width = shape
    return (
        min(depth, tiles.planes),
        min(height, tiles.across * core_side(height, tiles)),
        min(width, tiles.across * core_side(width, tiles)),
    )


def blocks(shape: Shape3, tiles: TileSpec) -> tuple[Block, ...]:
    """Divide a volume into blocks that cover each voxel once.

    Parameters
    ----------
    shape
        Shape of the volume, (z, y, x); a 2D image has z = 1.
    tiles
        Tiles of the recipe.

    Returns
    -------
    tuple of Block
        Ordered by z, then y, then x; clipped at the far borders.
    """
    return grid(shape, block_shape(shape, tiles))


def grid(shape: Shape3, side: Shape3) -> tuple[Block, ...]:
    """Divide a volume of ``shape`` (z, y, x) into blocks of shape ``side``, clipped at the far borders."""
    cuts = [_cut(0, length, step) for length, step in zip(shape, side, strict=True)]
    return tuple(
        Block((k, j, i), (slice(*z), slice(*y), slice(*x)))
        for (k, z), (j, y), (i, x) in product(*(enumerate(cut) for cut in cuts))
    )


def tiles_of(block: Block, plane_shape: tuple[int, int], tiles: TileSpec) -> tuple[Tile, ...]:
    """Divide the planes of a block into tiles whose cores cover each pixel of the block once.

    Parameters
    ----------
    block
        One of :func:`blocks`.
    plane_shape
        Shape of the volume's planes, (y, x).
    tiles
        Tiles of the recipe, the same as for the blocks.

    Returns
    -------
    tuple of Tile
        Ordered by y, then x; the same for every plane of the block.
    """
    spans = []
    for owned, side in zip(block.core[1:], plane_shape, strict=True):
        cores = _cut(owned.start, owned.stop, core_side(side, tiles))
        spans.append([(core, _window(core, side, tiles)) for core in cores])
    blend = min(tiles.blend, tiles.overlap)
    return tuple(Tile((*y, *x), (*wy, *wx), tiles.overlap, blend) for (y, wy), (x, wx) in product(*spans))


def windows_box(block: Block, shape: Shape3, tiles: TileSpec) -> Box:
    """Return the box of a volume of this shape that the tiles of a block read, context included.

    Along z the context ends at the borders: it is not moved inwards.
    """
    windows = np.array([tile.window for tile in tiles_of(block, shape[1:], tiles)])
    top, left = windows[:, 0].min(), windows[:, 2].min()
    bottom, right = windows[:, 1].max(), windows[:, 3].max()
    planes = with_context(block.core[0], shape[0], tiles)
    return planes, slice(int(top), int(bottom)), slice(int(left), int(right))


def with_context(planes: slice, depth: int, tiles: TileSpec) -> slice:
    """Return planes of a volume of this depth with the planes of context above and below."""
    return slice(max(planes.start - tiles.overlap_planes, 0), min(planes.stop + tiles.overlap_planes, depth))


def blend_weight(tile: Tile, block: Block) -> npt.NDArray[np.float32]:
    """Return the blend weight of each pixel of a tile's window.

    Around a face between two tiles of the block the weight falls along a raised cosine from 1 to 0 over
    ``blend`` pixels on either side; elsewhere inside the block it is 1 over the tile's core. It is 0 outside
    the block, so that blocks are independent of each other.

    Returns
    -------
    numpy.ndarray
        Float32 (window y, window x) in [0, 1]. Over the tiles of a block the weights add up to 1 on every
        pixel of the block, up to rounding.
    """
    y0, y1, x0, x1 = tile.core
    top, bottom, left, right = tile.window
    _, rows, columns = block.core
    vertical = _profile((y0, y1), (top, bottom), rows, tile.blend)
    horizontal = _profile((x0, x1), (left, right), columns, tile.blend)
    return (vertical[:, None] * horizontal[None, :]).astype(np.float32)


def overlap_pairs(tiles: Sequence[Tile]) -> tuple[tuple[int, int, Rectangle], ...]:
    """Return the regions that two neighbouring tiles both see, to measure their disagreement there.

    Parameters
    ----------
    tiles
        Tiles of one plane, from one block or several.

    Returns
    -------
    tuple of (int, int, Rectangle)
        Positions in ``tiles`` of two tiles whose cores share a face, the first above or left of the
        second, and the region (y0, y1, x0, x1) inside both windows and within the overlap of that face.
        Tiles without overlap have no such region.
    """
    starts: dict[tuple[int, int], int] = {}
    for position, tile in enumerate(tiles):
        starts[tile.core[0], tile.core[2]] = position
    pairs = []
    for position, tile in enumerate(tiles):
        y0, y1, x0, x1 = tile.core
        for axis, key in ((0, (y1, x0)), (1, (y0, x1))):
            other = starts.get(key)
            if other is None or not tile.overlap:
                continue
            low = [max(tile.window[0], tiles[other].window[0]), max(tile.window[2], tiles[other].window[2])]
            high = [min(tile.window[1], tiles[other].window[1]), min(tile.window[3], tiles[other].window[3])]
            face = (y1, x1)[axis]
            low[axis] = max(low[axis], face - tile.overlap)
            high[axis] = min(high[axis], face + tile.overlap)
            pairs.append((position, other, (low[0], high[0], low[1], high[1])))
    return tuple(pairs)


def shard_and_chunk(
    shape: tuple[int, ...], block: tuple[int, ...], chunk_side: int | tuple[int, ...] = CHUNK_SIDE
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return shapes of shards and of their inner chunks such that one shard is one block.

    Parameters
    ----------
    shape, block
        Shapes of the array and of a block of it.
    chunk_side
        Target side of inner chunks, in voxels; of all axes, or one for each.

    Returns
    -------
    tuple
        Shapes of the shard and of the inner chunk. Zarr requires that chunks divide shards. Along an axis
        that one block spans, the shard may extend beyond the array, so chunks are ``chunk_side`` long (or as
        long as the axis, if shorter). Along others their length is the divisor of the block's that is nearest
        in ratio to ``chunk_side``.
    """
    shards, chunks = [], []
    sides = (chunk_side,) * len(shape) if isinstance(chunk_side, int) else chunk_side
    for length, step, side in zip(shape, block, sides, strict=True):
        if step >= length:
            chunk = min(side, length)
            shards.append(-(-length // chunk) * chunk)
        else:
            chunk = min(
                (n for n in range(1, step + 1) if step % n == 0),
                key=lambda n: max(n / side, side / n),
            )
            shards.append(step)
        chunks.append(chunk)
    return tuple(shards), tuple(chunks)


def _cut(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """Divide [start, stop) into runs of ``step``; the last one may be shorter."""
    return list(pairwise([*range(start, stop, step), stop]))


def _window(core: tuple[int, int], plane_side: int, tiles: TileSpec) -> tuple[int, int]:
    """Place the window of a core along one axis: centred, then moved into the plane."""
    side = window_side(plane_side, tiles)
    start = min(max(core[0] - tiles.overlap, 0), plane_side - side)
    return start, start + side


def _profile(
    core: tuple[int, int], window: tuple[int, int], owned: slice, blend: int
) -> npt.NDArray[np.float64]:
    """Return the blend weight along one axis of a window."""
    pixels = np.arange(*window)
    inside = (pixels >= owned.start) & (pixels < owned.stop)
    weight: npt.NDArray[np.float64] = np.where(inside, 1.0, 0.0)
    if core[0] > owned.start:
        weight = weight * _rise(pixels, core[0], blend)
    if core[1] < owned.stop:
        weight = weight * (1.0 - _rise(pixels, core[1], blend))
    return weight


def _rise(pixels: npt.NDArray[np.int_], face: int, blend: int) -> npt.NDArray[np.float64]:
    """Return a ramp from 0 to 1 around the face before pixel ``face``; a step if ``blend`` is 0."""
    if blend == 0:
        return np.where(pixels >= face, 1.0, 0.0)
    phase: npt.NDArray[np.float64] = np.clip((pixels + 0.5 - face) / blend, -1.0, 1.0)
    rise: npt.NDArray[np.float64] = 0.5 + 0.5 * np.sin(0.5 * np.pi * phase)
    return rise
