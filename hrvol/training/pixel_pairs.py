"""Pixels seen through several windows: from them follows what features say about places in a window."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.training.sampling import places_of
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, Tile
from hrvol.volume.intensity import Window, read_unit
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


WINDOWS, IN_ALL = 3, 16
"""Windows through which a tile's surroundings are seen: more where tiles are few."""

PIXELS = 500
"""Pixels compared of each two windows."""


@dataclass(frozen=True, eq=False)
class PixelPairs:
    """The same pixels seen through two windows.

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
    featuriser: Featuriser,
    window: Window,
    tiles: TileSpec,
    *,
    most_tiles: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> PixelPairs:
    """See pixels of a volume through windows that are displaced by up to three quarters of their side.

    Where planes are no larger than a window, windows are displaced by up to half their side beyond the plane,
    which is reflected there; only pixels of the plane itself are compared.

    Parameters
    ----------
    volume, region, window, tiles
        Where, and what tiles look like.
    featuriser
        Of the deep features. Those of one offset are enough (:meth:`Featuriser.one_offset`): the windows lie
        at all sub-patch offsets to each other.
    most_tiles
        Tiles whose surroundings are seen, at most.
    seed
        The same seed sees the same.
    progress
        Called with stage, voxels seen, all voxels.

    Returns
    -------
    PixelPairs
        None (n is 0) where windows cannot be displaced, or do not meet.
    """
    rng = np.random.default_rng([seed, 2])
    deep = featuriser.groups["deep"]
    chosen = stratified_tiles(volume.shape, region, tiles, most_tiles, seed)
    count = max(WINDOWS, -(-IN_ALL // len(chosen)))
    seen = []
    for z, _, tile in chosen:
        views = [tile, *(_displaced(tile, volume.shape, rng) for _ in range(count - 1))]
        views = list({view.window: view for view in views}.values())
        if len(views) > 1:
            seen.append((z, views))
    area = sum(math.prod(view.window_shape) for _, views in seen for view in views)
    tally = Tally(progress, "position", area)
    differences = [np.empty((0, deep.stop - deep.start), np.float32)]
    places = [[np.empty((0, 2))], [np.empty((0, 2))]]
    for z, views in seen:
        shared = [(i, j, *_shared(views[i], views[j], volume.shape, rng)) for i, j in _partners(len(views))]
        found = {}
        for number, view in enumerate(views):
            at = [
                (k, y - view.window[0], x - view.window[2])
                for k, (i, j, y, x) in enumerate(shared)
                if number in (i, j)
            ]
            y, x = (np.concatenate([entry[axis] for entry in at]) for axis in (1, 2))
            features = featuriser.pixels(_read(volume, z, view, window), y, x, unit=True)[0][:, deep]
            ends = np.cumsum([len(entry[1]) for entry in at])[:-1]
            for (k, _, _), values, place in zip(
                at, np.split(features, ends), np.split(places_of(y, x, view), ends), strict=True
            ):
                found[number, k] = (values, place)
            tally.finish((z, number, view.core), math.prod(view.window_shape))
        for k, (i, j, _, _) in enumerate(shared):
            (first, here), (second, there) = found[i, k], found[j, k]
            differences.append(first - second)
            places[0].append(here)
            places[1].append(there)
    return PixelPairs(np.concatenate(differences), *(np.concatenate(side) for side in places))


def _partners(count: int) -> list[tuple[int, int]]:
    """Return which windows are compared: each with the first and with the next."""
    return [(i, j) for i in range(count) for j in range(i + 1, count) if i == 0 or j == i + 1]


def _shared(
    a: Tile, b: Tile, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pixels (y, x) of the plane that two windows show; none where they do not meet."""
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


def _read(volume: Volume, z: int, tile: Tile, window: Window) -> NDArray[np.float32]:
    """Return a tile's window (Y, X) in [0, 1], the plane reflected where the window goes beyond it."""
    y0, y1, x0, x1 = tile.window
    _, height, width = volume.shape
    inside = replace(tile, window=(max(y0, 0), min(y1, height), max(x0, 0), min(x1, width)))
    beyond = ((max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)))
    return np.pad(read_unit(volume, z, inside, window), beyond, mode="reflect")
