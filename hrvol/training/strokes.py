"""Read the tiles that hold strokes, and compute the features of the stroke pixels in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import RecipeError, StrokesError, UsageError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import Samples, StrokeBlock, StrokePixels, check_drawn, collect_samples
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import Tile, grid
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


SCAN = (64, 512, 512)
"""Voxels of strokes read at once, at most, per axis (z, y, x)."""

MOST_VOXELS = 2**42
"""Most voxels of strokes: all of them are read."""


@dataclass(frozen=True)
class TrainingPair:
    """A volume and the strokes drawn on it, both (Z, Y, X)."""

    volume: Volume
    strokes: Volume


def open_pairs(
    data: Sequence[tuple[Any, Any]], storage_options: Mapping[str, Any] | None
) -> tuple[TrainingPair, ...]:
    """Open pairs of a volume and its strokes.

    Raises
    ------
    StrokesError
        Strokes and their volume differ in shape.
    """
    pairs = tuple(
        TrainingPair(
            open_volume(located(volume, storage_options)), open_labels(located(strokes, storage_options))
        )
        for volume, strokes in data
    )
    for pair in pairs:
        if pair.volume.shape != pair.strokes.shape:
            raise StrokesError(
                f"{pair.strokes.source}: found strokes of shape {pair.strokes.shape}, expected"
                f" {pair.volume.shape} (Z, Y, X) as {pair.volume.source}"
            )
        if math.prod(pair.strokes.shape) > MOST_VOXELS:
            raise StrokesError(
                f"{pair.strokes.source}: found strokes of shape {pair.strokes.shape}, all of which are read,"
                f" expected at most {MOST_VOXELS:.1e} voxels: crop the volume to what is drawn on"
            )
    return pairs


def check_data(data: Sequence[tuple[Any, Any]], command: str) -> None:
    """Raise a :class:`UsageError` if there are no pairs of a volume and its strokes."""
    if not data:
        raise UsageError(f"{command}: found no volumes, expected pairs of a volume and its strokes")


def sources_of(pairs: Sequence[TrainingPair]) -> str:
    """Return the names of all strokes, for messages."""
    return ", ".join(pair.strokes.source for pair in pairs)


def check_context(featuriser: Featuriser, volumes: Sequence[Volume], tiles: TileSpec) -> None:
    """Check that filters reach no further than the context of tiles: they would draw seams.

    Raises
    ------
    RecipeError
        A plane needs several tiles, and ``tiles.overlap`` is less than the filters' reach.
    """
    side = max(max(volume.shape[1:]) for volume in volumes)
    if featuriser.halo > tiles.overlap and side > tiles.core + 2 * tiles.overlap:
        raise RecipeError(
            f"tiles.overlap: filters reach {featuriser.halo} px, found an overlap of {tiles.overlap} px;"
            f" expected at least {featuriser.halo}, or smaller sigmas"
        )


def stroke_blocks(pairs: Sequence[TrainingPair]) -> Iterator[StrokeBlock]:
    """Yield the pieces of strokes that have drawn pixels, reading one piece at a time.

    Raises
    ------
    StrokesError
        The strokes look like a grey volume.
    """
    for image, pair in enumerate(pairs):
        for piece in grid(pair.strokes.shape, SCAN):
            labels = pair.strokes.read(piece.core)
            if labels.any():
                check_drawn(labels, pair.strokes.source)
                z, y, x = (axis.start for axis in piece.core)
                yield StrokeBlock(image, (z, y, x), labels)


def gather(
    pairs: Sequence[TrainingPair],
    pixels: StrokePixels,
    features: TileFeatures,
    progress: ProgressCallback | None,
) -> Samples:
    """Compute the features of stroke pixels.

    They equal those of a segmentation: the same tiles are read, and a pixel's features come from the tile
    whose core owns it. Tiles without any of the pixels are not read.
    """
    layouts = [tuple(plane_tiles(pair.volume.shape, features.tiles)) for pair in pairs]
    work = sum(
        sum(_area(tile) for tile, _ in _owners(layouts[image], y, x)) for image, _, y, x in pixels.planes()
    )
    tally = Tally(progress, "features of strokes", work)

    def features_at(image: int, z: int, y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        values = np.empty((len(y), len(features.featuriser.channels)), np.float32)
        for tile, owned in _owners(layouts[image], y, x):
            of_tile = features.of(pairs[image].volume, z, tile)
            rows, columns = y[owned] - tile.window[0], x[owned] - tile.window[2]
            values[owned] = of_tile[:, rows, columns].numpy(force=True).T
            tally.finish((image, z, tile.core), _area(tile))
        return values

    return collect_samples(pixels, features_at)


def _owners(
    layout: Sequence[Tile], y: NDArray[Any], x: NDArray[Any]
) -> Iterator[tuple[Tile, NDArray[np.intp]]]:
    """Yield the tiles whose cores own some of the pixels, and the indices of these pixels."""
    for tile in layout:
        y0, y1, x0, x1 = tile.core
        owned = np.flatnonzero((y >= y0) & (y < y1) & (x >= x0) & (x < x1))
        if len(owned):
            yield tile, owned


def _area(tile: Tile) -> int:
    """Return the pixels of a tile's window."""
    height, width = tile.window_shape
    return height * width


def name_classes(
    values: Sequence[int], names: Sequence[str] | None, strokes: Sequence[Any]
) -> tuple[ClassInfo, ...]:
    """Return the classes to train: named by the user, else by the strokes' metadata, else numbered."""
    infos = default_classes(values, names)
    if names is not None:
        return infos
    named = {info.value: info for source in reversed(strokes) for info in class_info(source) or ()}
    return tuple(named.get(info.value, info) for info in infos)
