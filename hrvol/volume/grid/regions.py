"""List the tiles of a region: all of them, or a stratified sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hrvol.arrays import Shape3
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import Box, Tile, blocks, intersection, tiles_of, whole


def plane_tiles(shape: tuple[int, ...], tiles: TileSpec) -> Iterator[Tile]:
    """Yield the tiles of a plane ``(Y, X)``; each pixel is in the core of exactly one."""
    plane = (1, shape[-2], shape[-1])
    for _, tile in region_tiles(plane, whole(plane), tiles):
        yield tile


def region_tiles(shape: Shape3, region: Box, tiles: TileSpec) -> Iterator[tuple[Box, Tile]]:
    """Yield the tiles of a volume that own voxels of a region, and the box (z, y, x) of those voxels."""
    for block in blocks(shape, tiles):
        if intersection(block.core, region) is None:
            continue
        for tile in tiles_of(block, shape[1:], tiles):
            owned = intersection((block.core[0], *tile.core_slices), region)
            if owned is not None:
                yield owned, tile


def stratified_tiles(
    shape: Shape3, region: Box, tiles: TileSpec, count: int, seed: int
) -> tuple[tuple[int, Box, Tile], ...]:
    """Choose tiles that represent a region: spread evenly in depth and over the positions in a plane.

    The choice does not depend on how tiles are grouped into blocks.

    Returns
    -------
    tuple of (int, Box, Tile)
        Plane number, the voxels of the region that the tile owns in that plane, the tile; in order of depth.
        All tiles of the region if there are at most ``count``.
    """
    rng = np.random.default_rng(seed)
    depth = region[0].stop - region[0].start
    plane = (slice(0, 1), *region[1:])
    layout = sorted(region_tiles((1, *shape[1:]), plane, tiles), key=lambda entry: entry[1].core)
    total = depth * len(layout)
    if count >= total:
        draws = [(z, i) for z in range(depth) for i in range(len(layout))]
    else:
        # One draw from each of `count` slabs; positions in the plane take turns in a random order. Slabs are
        # whole planes, so that no two draws share one. With more draws than planes, the middle of each slab
        # is drawn: no plane then has one position twice.
        turns = rng.permutation(len(layout))
        if count <= depth:
            edges = np.arange(count + 1) * depth // count
            planes = rng.integers(edges[:-1], edges[1:])
        else:
            planes = (2 * np.arange(count) + 1) * depth // (2 * count)
        draws = [(int(z), int(turns[i % len(turns)])) for i, z in enumerate(planes)]
    chosen = []
    for z, i in draws:
        (_, rows, columns), tile = layout[i]
        number = region[0].start + z
        chosen.append((number, (slice(number, number + 1), rows, columns), tile))
    return tuple(chosen)
