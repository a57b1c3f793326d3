"""Pixels that stand for a volume: whatever is fitted without strokes sees these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.segment.positions import relative
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, Tile, box_shape
from hrvol.volume.intensity import Window, read_unit
from hrvol.volume.volume import Volume

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
