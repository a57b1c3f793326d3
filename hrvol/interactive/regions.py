"""Find the blocks and tiles of a region of a plane, however large the volume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.interactive.region import Region
from hrvol.recipe.specs import TileSpec
from hrvol.run.predict import PartView, part_view
from hrvol.volume.grid.tiling import Block, Box, Tile, block_shape, core_side, intersection, tiles_of

TileKey = tuple[int, int, int]
"""A tile: plane, and its row and column in the plane's grid of tiles."""


@dataclass(frozen=True, eq=False)
class RegionPart:
    """The part of a region that one block owns, and tiles that it is predicted from, with their keys."""

    block: Block
    box: Box
    keys: tuple[TileKey, ...]
    views: tuple[PartView, ...]


def region_parts(
    shape: Shape3, tiles: TileSpec, region: Region, keys: Iterable[TileKey] | None = None
) -> Iterator[RegionPart]:
    """Yield the parts of a region inside of a volume, in the blocks of a run, in order.

    Parameters
    ----------
    shape, tiles
        Of the volume.
    region
        The region.
    keys
        Tiles of it, each once: others are left out, and so are parts without any; ``None``: all.
    """
    wanted = keys_of_region(shape, tiles, region) if keys is None else keys
    ordered = sorted((_block_of(key, tiles), key) for key in wanted)
    for _, group in groupby(ordered, key=lambda entry: entry[0]):
        own = [key for _, key in group]
        first = tile_of(shape, tiles, *own[0][1:]).core
        place = (region.box[0], slice(first[0], first[0] + 1), slice(first[2], first[2] + 1))
        block = next(blocks_in(shape, tiles, place))
        box = intersection(block.core, region.box)
        if box is None:
            continue
        views = [(key, part_view(tile_of(shape, tiles, *key[1:]), block, box)) for key in own]
        found = [(key, view) for key, view in views if view is not None]
        if found:
            yield RegionPart(block, box, tuple(key for key, _ in found), tuple(view for _, view in found))


def _block_of(key: TileKey, tiles: TileSpec) -> tuple[int, int]:
    return key[1] // tiles.across, key[2] // tiles.across


def on_grid(first: int, length: int, step: int) -> tuple[slice, slice] | None:
    """Return which of some pixels of a region are on the grid of a preview, and where they are on it.

    Parameters
    ----------
    first
        Position of the first pixel in the region.
    length
        Number of pixels.
    step
        Pixels between values of the preview.

    Returns
    -------
    tuple of slice or None
        Slice of the pixels with a step, and of the preview; ``None`` if none is on the grid.
    """
    skip = -first % step
    count = len(range(skip, length, step))
    start = (first + skip) // step
    return (slice(skip, length, step), slice(start, start + count)) if count else None


def blocks_in(shape: Shape3, tiles: TileSpec, box: Box) -> Iterator[Block]:
    """Yield those of :func:`hrvol.volume.grid.tiling.blocks` that share voxels with a box, in order."""
    sides = block_shape(shape, tiles)
    ranges = [range(span.start // side, -(-span.stop // side)) for span, side in zip(box, sides, strict=True)]
    for k in ranges[0]:
        for j in ranges[1]:
            for i in ranges[2]:
                index = (k, j, i)
                z, y, x = (
                    slice(n * side, min((n + 1) * side, length))
                    for n, side, length in zip(index, sides, shape, strict=True)
                )
                yield Block(index, (z, y, x))


def tile_keys(shape: Shape3, tiles: TileSpec, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys ``(n, 3)`` of the tiles that own voxels ``(n, 3)``: z, y, x."""
    height, width = core_side(shape[1], tiles), core_side(shape[2], tiles)
    return np.stack([places[:, 0], places[:, 1] // height, places[:, 2] // width], axis=1)


@lru_cache(maxsize=4096)
def tile_of(shape: Shape3, tiles: TileSpec, row: int, column: int) -> Tile:
    """Return the tile of a plane at a row and column of its grid."""
    y, x = row * core_side(shape[1], tiles), column * core_side(shape[2], tiles)
    box = (slice(0, 1), slice(y, y + 1), slice(x, x + 1))
    for tile in tiles_of(next(blocks_in(shape, tiles, box)), shape[1:], tiles):
        y0, y1, x0, x1 = tile.core
        if y0 <= y < y1 and x0 <= x < x1:
            return tile
    raise IndexError(f"no tile {row}, {column} in planes of {shape[1:]}")


def tile_ranges(shape: Shape3, tiles: TileSpec, region: Region) -> tuple[range, range]:
    """Return the rows and columns, in the grid of tiles, of the tiles that a region is predicted from."""
    rows, columns = (
        _numbers(length, tiles, span)
        for length, span in zip(shape[1:], (region.rows, region.columns), strict=True)
    )
    return rows, columns


def count_tiles(shape: Shape3, tiles: TileSpec, region: Region) -> int:
    """Return the number of tiles that a region is predicted from."""
    rows, columns = tile_ranges(shape, tiles, region)
    return len(rows) * len(columns)


def _numbers(length: int, tiles: TileSpec, span: slice) -> range:
    """Return the numbers of the tiles along an axis that count in a span: in its blocks, with their blend."""
    core, blend = core_side(length, tiles), min(tiles.blend, tiles.overlap)
    side = min(length, tiles.across * core)
    top = span.start // side * side  # of the first block
    bottom = min(-(-span.stop // side) * side, length)
    first = max((span.start - blend) // core, top // core)
    last = min(-(-(span.stop + blend) // core), -(-bottom // core))
    return range(first, last)


def keys_of_region(
    shape: Shape3, tiles: TileSpec, region: Region, most: int | None = None
) -> tuple[TileKey, ...]:
    """Return the keys of the tiles that a region is predicted from, those near its middle first.

    Parameters
    ----------
    shape, tiles
        Of the volume.
    region
        The region.
    most
        How many keys; the time is that of so many, however large the region. ``None``: all.
    """
    axes = []
    for numbers, middle, length in zip(
        tile_ranges(shape, tiles, region), region.centre, shape[1:], strict=True
    ):
        core = core_side(length, tiles)
        distances = [
            (((n * core + min((n + 1) * core, length)) / 2 - middle) ** 2, n)
            for n in _near(numbers, int(middle) // core, most)
        ]
        axes.append(sorted(distances)[:most])
    found = {(region.plane, row, column): a + b for (a, row), (b, column) in product(*axes)}
    return tuple(sorted(found, key=lambda key: (found[key], key)))[:most]


def _near(numbers: range, middle: int, most: int | None) -> range:
    """Return at least so many numbers on either side of one, if there are as many."""
    if most is None:
        return numbers
    return range(max(numbers.start, middle - most), min(numbers.stop, middle + most + 1))


def spread_keys(shape: Shape3, tiles: TileSpec, region: Region, most: int) -> tuple[TileKey, ...]:
    """Return at most so many tiles that a region is predicted from, spread evenly over it.

    If it has no more, those near its middle are first.
    """
    rows, columns = tile_ranges(shape, tiles, region)
    if len(rows) * len(columns) <= most:
        return keys_of_region(shape, tiles, region)
    down = min(len(rows), max(1, math.isqrt(most * len(rows) // len(columns))), most)
    across = min(len(columns), most // down)
    chosen = (
        [numbers[(2 * i + 1) * len(numbers) // (2 * count)] for i in range(count)]
        for numbers, count in ((rows, min(len(rows), most // across)), (columns, across))
    )
    return tuple((region.plane, row, column) for row, column in product(*chosen))
