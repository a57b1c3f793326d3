"""Sample the features of pixels spread over a volume, to fit what needs no strokes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrvol.progress import ProgressCallback, Tally
from hrvol.segment.positions import relative
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, Tile, box_shape
from hrvol.volume.volume import Volume


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
    features: TileFeatures,
    *,
    pixels: int,
    most_tiles: int,
    seed: int,
    unit: bool = False,
    attention: bool = False,
    progress: ProgressCallback | None = None,
) -> PixelSample:
    """Compute the features of pixels spread over a region.

    They equal those of a segmentation: a pixel's features come from the tile that owns it.

    Parameters
    ----------
    volume, region
        The voxels to sample from.
    features
        How features are computed.
    pixels, most_tiles
        How many pixels are taken, from how many tiles at most.
    seed
        The same seed takes the same pixels.
    unit, attention
        As for :meth:`hrvol.features.featuriser.Featuriser.pixels`.
    progress
        Called with stage, voxels done, all voxels.
    """
    rng = np.random.default_rng([seed, 1])
    chosen = stratified_tiles(volume.shape, region, features.tiles, most_tiles, seed)
    areas = np.array([np.prod(box_shape(owned)) for _, owned, _ in chosen])
    ends = np.minimum(pixels, areas.sum()) * np.cumsum(areas) // areas.sum()
    tally = Tally(progress, "sample", int(areas.sum()))
    values, attentions, places = [], [], []
    for (z, owned, tile), count, area in zip(chosen, np.diff(ends, prepend=0), areas, strict=True):
        _, rows, columns = owned
        width = columns.stop - columns.start
        taken = np.sort(rng.choice(area, count, replace=False))
        y = rows.start - tile.window[0] + taken // width
        x = columns.start - tile.window[2] + taken % width
        of_tile, attention_of_tile = features.featuriser.pixels(
            features.image(volume, z, tile), y, x, unit=unit, attention=attention
        )
        values.append(of_tile)
        if attention_of_tile is not None:
            attentions.append(attention_of_tile)
        places.append(places_of(y, x, tile))
        tally.finish((z, tile.core), int(area))
    return PixelSample(
        np.concatenate(values), np.concatenate(attentions) if attentions else None, np.concatenate(places)
    )


def places_of(y: NDArray[np.integer], x: NDArray[np.integer], tile: Tile) -> NDArray[np.float64]:
    """Return the places ``(n, 2)`` in -1..1 of pixels ``(n,)`` of a tile's window."""
    height, width = tile.window_shape
    return np.stack([relative(y, height), relative(x, width)], axis=1)
