"""Pixels that stand for a volume: whatever is fitted without strokes sees these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe import TileSpec
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.run.train import Window, read_unit
from hrvol.segment.positions import relative
from hrvol.volume.store import Volume
from hrvol.volume.tiling import Box, Tile, blocks, box_shape, intersection, tiles_of

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True, eq=False)
class PixelSample:
    """Features of pixels spread over a region.

    Attributes
    ----------
    features
        ``(n, C)`` float32.
    attention
        ``(n,)`` float32, times uniform, or ``None``.
    places
        ``(n, 2)`` float64, (y, x) in the tiles' windows, -1..1 from border to border.
    """

    features: NDArray[np.float32]
    attention: NDArray[np.float32] | None
    places: NDArray[np.float64]


def region_tiles(shape: tuple[int, int, int], region: Box, tiles: TileSpec) -> Iterator[tuple[Box, Tile]]:
    """Yield the tiles of a volume that own voxels of a region, and the box (z, y, x) of those voxels."""
    for block in blocks(shape, tiles):
        if intersection(block.core, region) is None:
            continue
        for tile in tiles_of(block, shape[1:], tiles):
            owned = intersection((block.core[0], *tile.core_slices), region)
            if owned is not None:
                yield owned, tile


def stratified_tiles(
    shape: tuple[int, int, int], region: Box, tiles: TileSpec, count: int, seed: int
) -> tuple[tuple[int, Box, Tile], ...]:
    """Choose tiles that stand for a region: spread evenly in depth, and over the places in a plane.

    How tiles are grouped into blocks makes no difference.

    Returns
    -------
    tuple of (int, Box, Tile)
        Plane number, the voxels of the region that the tile owns in that plane, the tile; in order of depth.
        All tiles of the region if these are no more than ``count``.
    """
    rng = np.random.default_rng(seed)
    depth = region[0].stop - region[0].start
    one = (slice(0, 1), *region[1:])
    layout = sorted(region_tiles((1, *shape[1:]), one, tiles), key=lambda entry: entry[1].core)
    total = depth * len(layout)
    if count >= total:
        places = [(z, i) for z in range(depth) for i in range(len(layout))]
    else:
        # One draw from each of `count` slabs; the places in the plane take turns in a random order. Slabs are
        # whole planes, so that no two draws meet in one. With more draws than planes the middle of a slab is
        # taken: no plane then shows one place twice.
        turns = rng.permutation(len(layout))
        if count <= depth:
            edges = np.arange(count + 1) * depth // count
            planes = rng.integers(edges[:-1], edges[1:])
        else:
            planes = (2 * np.arange(count) + 1) * depth // (2 * count)
        places = [(int(z), int(turns[i % len(turns)])) for i, z in enumerate(planes)]
    chosen = []
    for z, i in places:
        (_, rows, columns), tile = layout[i]
        at = region[0].start + z
        chosen.append((at, (slice(at, at + 1), rows, columns), tile))
    return tuple(chosen)


def sample_pixels(
    volume: Volume,
    region: Box,
    featuriser: Featuriser,
    window: Window,
    tiles: TileSpec,
    *,
    pixels: int,
    most_tiles: int,
    seed: int,
    unit: bool = False,
    attention: bool = False,
    progress: ProgressCallback | None = None,
) -> PixelSample:
    """Take the features of pixels spread over a region.

    They are the ones that a segmentation will see: a pixel's features come from the tile that owns it.

    Parameters
    ----------
    volume, region
        Where.
    featuriser, window, tiles
        How features are made.
    pixels, most_tiles
        How many pixels are taken, from how many tiles at most.
    seed
        The same seed takes the same pixels.
    unit, attention
        As for :meth:`hrvol.features.featuriser.Featuriser.pixels`.
    progress
        Called with stage, voxels seen, all voxels.
    """
    rng = np.random.default_rng([seed, 1])
    chosen = stratified_tiles(volume.shape, region, tiles, most_tiles, seed)
    areas = np.array([np.prod(box_shape(owned)) for _, owned, _ in chosen])
    ends = np.minimum(pixels, areas.sum()) * np.cumsum(areas) // areas.sum()
    tally = Tally(progress, "sample", int(areas.sum()))
    features, paid, places = [], [], []
    for (z, owned, tile), count, area in zip(chosen, np.diff(ends, prepend=0), areas, strict=True):
        _, rows, columns = owned
        width = columns.stop - columns.start
        taken = np.sort(rng.choice(area, count, replace=False))
        y = rows.start - tile.window[0] + taken // width
        x = columns.start - tile.window[2] + taken % width
        found, attended = featuriser.pixels(
            read_unit(volume, z, tile, window), y, x, unit=unit, attention=attention
        )
        features.append(found)
        paid.append(attended)
        places.append(places_of(y, x, tile))
        tally.finish((z, tile.core), int(area))
    heard = [part for part in paid if part is not None]
    return PixelSample(
        np.concatenate(features), np.concatenate(heard) if heard else None, np.concatenate(places)
    )


def places_of(y: NDArray[np.integer], x: NDArray[np.integer], tile: Tile) -> NDArray[np.float64]:
    """Return where pixels ``(n,)`` of a window lie in it, ``(n, 2)`` in -1..1."""
    height, width = tile.window_shape
    return np.stack([relative(y, height), relative(x, width)], axis=1)
