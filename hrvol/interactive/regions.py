"""Find the blocks and tiles of a region of a plane, however large the volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.interactive.region import Region
from hrvol.recipe.specs import TileSpec
from hrvol.run.predict import PartView, part_views
from hrvol.volume.grid.tiling import Block, Box, Tile, block_shape, core_side, intersection, tiles_of

TileKey = tuple[int, int, int]
"""A tile: plane, and its row and column in the plane's grid of tiles."""


@dataclass(frozen=True, eq=False)
class RegionPart:
    """The part of a region that one block owns, and the tiles that it is predicted from."""

    block: Block
    box: Box
    views: tuple[PartView, ...]


def region_parts(shape: Shape3, tiles: TileSpec, region: Region) -> Iterator[RegionPart]:
    """Yield the parts of a region inside of a volume, in the blocks of a run, in order."""
    for block in blocks_in(shape, tiles, region.box):
        box = intersection(block.core, region.box)
        assert box is not None
        yield RegionPart(block, box, tuple(part_views(block, box, shape, tiles)))


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


def keys_of_region(shape: Shape3, tiles: TileSpec, region: Region) -> tuple[TileKey, ...]:
    """Return the keys of the tiles that a region is predicted from, those near its middle first."""
    height, width = core_side(shape[1], tiles), core_side(shape[2], tiles)
    middle = region.centre
    found = {}
    for part in region_parts(shape, tiles, region):
        for view in part.views:
            y0, y1, x0, x1 = view.tile.core
            distance = ((y0 + y1) / 2 - middle[0]) ** 2 + ((x0 + x1) / 2 - middle[1]) ** 2
            found[region.plane, y0 // height, x0 // width] = distance
    return tuple(sorted(found, key=lambda key: (found[key], key)))
