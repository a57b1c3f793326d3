"""Compare features of the same pixels in several tile windows: they differ by their positional component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrvol.progress import ProgressCallback, Tally
from hrvol.training.sampling import places_of
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, Tile
from hrvol.volume.volume import Volume

WINDOWS, IN_ALL = 3, 16
"""Least number of windows around a tile, and of windows in all: more per tile where tiles are few."""

PIXELS = 500
"""Pixels compared of each two windows."""


@dataclass(frozen=True, eq=False)
class PixelPairs:
    """The same pixels seen in two windows.

    Attributes
    ----------
    differences
        ``(n, C)`` float32: deep features in the first window minus those in the second, of tokens of
        length 1.
    here, there
        ``(n, 2)`` places in the two windows, -1..1.
    """

    differences: NDArray[np.float32]
    here: NDArray[np.float64]
    there: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.differences)


def pixel_pairs(
    volume: Volume,
    region: Box,
    features: TileFeatures,
    *,
    most_tiles: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> PixelPairs:
    """Compare deep features of pixels in windows displaced by up to three quarters of their side.

    Where planes are no larger than a window, windows are displaced by up to half their side beyond the plane,
    which is reflected there; only pixels of the plane itself are compared.

    Parameters
    ----------
    volume, region
        The voxels to sample from.
    features
        How features are computed. Deep features of one offset suffice
        (:meth:`hrvol.features.featuriser.Featuriser.one_offset`): the windows lie at all sub-patch offsets
        to each other.
    most_tiles
        Most tiles around which windows are placed.
    seed
        The same seed gives the same pairs.
    progress
        Called with stage, voxels done, all voxels.

    Returns
    -------
    PixelPairs
        Empty (n is 0) where windows cannot be displaced, or do not overlap.
    """
    rng = np.random.default_rng([seed, 2])
    chosen = stratified_tiles(volume.shape, region, features.tiles, most_tiles, seed)
    count = max(WINDOWS, -(-IN_ALL // len(chosen)))
    views = []
    for z, _, tile in chosen:
        around = [tile, *(_displaced(tile, volume.shape, rng) for _ in range(count - 1))]
        around = list({view.window: view for view in around}.values())
        if len(around) > 1:
            views.append((z, around))
    area = sum(math.prod(view.window_shape) for _, around in views for view in around)
    tally = Tally(progress, "position", area)
    deep = features.featuriser.groups["deep"]
    pairs = [
        PixelPairs(np.empty((0, deep.stop - deep.start), np.float32), np.empty((0, 2)), np.empty((0, 2)))
    ]
    for z, around in views:
        shared = [
            (i, j, *_shared_pixels(around[i], around[j], volume.shape, rng))
            for i, j in _compared(len(around))
        ]
        seen = {}
        for number, view in enumerate(around):
            pixels = [
                (k, y - view.window[0], x - view.window[2])
                for k, (i, j, y, x) in enumerate(shared)
                if number in (i, j)
            ]
            y, x = (np.concatenate([entry[axis] for entry in pixels]) for axis in (1, 2))
            image = features.image(volume, z, view)
            values = features.featuriser.pixels(image, y, x, unit=True)[0][:, deep]
            ends = np.cumsum([len(entry[1]) for entry in pixels])[:-1]
            split = zip(pixels, np.split(values, ends), np.split(places_of(y, x, view), ends), strict=True)
            for (k, _, _), of_pair, places in split:
                seen[number, k] = (of_pair, places)
            tally.finish((z, number, view.core), math.prod(view.window_shape))
        for k, (i, j, _, _) in enumerate(shared):
            (first, here), (second, there) = seen[i, k], seen[j, k]
            pairs.append(PixelPairs(first - second, here, there))
    return joined_pairs(pairs)


def joined_pairs(pairs: Sequence[PixelPairs]) -> PixelPairs:
    """Return all pairs of several samples, in order."""
    columns = zip(*((part.differences, part.here, part.there) for part in pairs), strict=True)
    return PixelPairs(*(np.concatenate(column) for column in columns))


def _compared(count: int) -> list[tuple[int, int]]:
    """Return which windows are compared: each with the first and with the next."""
    return [(i, j) for i in range(count) for j in range(i + 1, count) if i == 0 or j == i + 1]


def _shared_pixels(
    a: Tile, b: Tile, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return random pixels (y, x) of the plane that two windows share; empty where they do not overlap."""
    low = [max(a.window[i], b.window[i], 0) for i in (0, 2)]
    high = [min(a.window[i], b.window[i], side) for i, side in zip((1, 3), shape[1:], strict=True)]
    if high[0] <= low[0] or high[1] <= low[1]:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    return rng.integers(low[0], high[0], PIXELS), rng.integers(low[1], high[1], PIXELS)


def _displaced(tile: Tile, shape: tuple[int, int, int], rng: np.random.Generator) -> Tile:
    """Return a tile whose window is displaced: within the plane, or beyond it where it is no larger."""
    y0, y1, x0, x1 = tile.window
    starts = []
    for start, stop, side in ((y0, y1, shape[1]), (x0, x1, shape[2])):
        length = stop - start
        if side > length:
            low, high = max(0, start - 3 * length // 4), min(side - length, start + 3 * length // 4)
        else:
            low, high = -(length // 2), length // 2
        starts.append(int(rng.integers(low, high + 1)))
    top, left = starts
    return replace(tile, window=(top, top + y1 - y0, left, left + x1 - x0))
