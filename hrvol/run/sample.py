"""Pixels that stand for a volume: whatever is fitted without strokes sees these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe import TileSpec
from hrvol.run.progress import ProgressCallback, Tally
from hrvol.run.train import Window, read_unit
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
    """

    features: NDArray[np.float32]
    attention: NDArray[np.float32] | None


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
    features, paid = [], []
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
        tally.finish((z, tile.core), int(area))
    heard = [part for part in paid if part is not None]
    return PixelSample(np.concatenate(features), np.concatenate(heard) if heard else None)


def pixel_pairs(
    volume: Volume,
    region: Box,
    featuriser: Featuriser,
    window: Window,
    tiles: TileSpec,
    *,
    pixels: int,
    most_tiles: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> NDArray[np.float32]:
    """Return how deep features of a pixel differ between two windows that show it at different places.

    Each of some tiles is seen again through a window displaced by up to three quarters of its side.

    Returns
    -------
    NDArray[np.float32]
        ``(n, C)`` differences of features of tokens of length 1; n is 0 where planes are not larger than a
        window.
    """
    rng = np.random.default_rng([seed, 2])
    chosen = stratified_tiles(volume.shape, region, tiles, most_tiles, seed)
    deep = featuriser.groups["deep"]
    moved = [(z, tile, _displaced(tile, volume.shape, rng)) for z, _, tile in chosen]
    moved = [(z, tile, other) for z, tile, other in moved if other.window != tile.window]
    tally = Tally(progress, "position", sum(2 * math.prod(tile.window_shape) for _, tile, _ in moved))
    found = [np.empty((0, deep.stop - deep.start), np.float32)]
    for z, tile, other in moved:
        low = [max(tile.window[i], other.window[i]) for i in (0, 2)]
        high = [min(tile.window[i], other.window[i]) for i in (1, 3)]
        y, x = (rng.integers(a, b, -(-pixels // len(moved))) for a, b in zip(low, high, strict=True))
        both = []
        for number, seen in enumerate((tile, other)):
            image = read_unit(volume, z, seen, window)
            at = (y - seen.window[0], x - seen.window[2])
            both.append(featuriser.pixels(image, *at, unit=True)[0][:, deep])
            tally.finish((z, tile.core, number), math.prod(seen.window_shape))
        found.append(both[0] - both[1])
    return np.concatenate(found)


def _displaced(tile: Tile, shape: tuple[int, int, int], rng: np.random.Generator) -> Tile:
    """Return a tile whose window is displaced within the plane, as far as there is room."""
    y0, y1, x0, x1 = tile.window
    starts = []
    for start, stop, side in ((y0, y1, shape[1]), (x0, x1, shape[2])):
        reach = 3 * (stop - start) // 4
        low, high = max(0, start - reach), min(side - (stop - start), start + reach)
        starts.append(int(rng.integers(low, high + 1)))
    top, left = starts
    return replace(tile, window=(top, top + y1 - y0, left, left + x1 - x0))
