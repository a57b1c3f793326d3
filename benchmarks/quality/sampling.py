"""Compute features of stroke pixels and of whole planes, tile by tile as training and segmentation do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe.recipe import Recipe
from hrvol.segment.strokes import Samples, StrokePixels, choose_pixels
from hrvol.training.strokes import TrainingPair, gather, stroke_blocks
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.tiling import Tile, blocks, tiles_of
from hrvol.volume.intensity import common_window, read_unit
from hrvol.volume.strokes.open_strokes import open_strokes, whole_strokes
from hrvol.volume.volume import Volume, open_volume

SAMPLING = Recipe()
"""Intensity window, tiles and cap of samples per class are those of the default recipe."""

PER_CLASS = 2000
"""Samples of a class on dense data and tcells: a fifth of the package's cap, to save time."""

STRIPE = 128
"""Rows of a tile that are classified at once."""


def samples_of(
    images: NDArray[Any],
    strokes: Mapping[int, NDArray[np.uint8]],
    featuriser: Any,
    *,
    recipe: Recipe = SAMPLING,
    progress: Any = None,
) -> dict[int, Samples]:
    """Return the training data of several drawings on one stack, whose planes are featurised once.

    Parameters
    ----------
    images
        ``(Z, Y, X)`` grey values.
    strokes
        Key -> strokes ``(Z, Y, X)``; the key seeds the choice where a class has more pixels than the cap.
    featuriser
        Of hybrid features.
    recipe
        For the intensity window, the tiles and the cap.
    progress
        Called with stage, pixels done, all pixels.
    """
    volume = open_volume(images)
    chosen = {}
    for key, drawn in strokes.items():
        pair = TrainingPair(volume, open_strokes(drawn))
        chosen[key] = choose_pixels(stroke_blocks([pair]), recipe.classifier.samples_per_class, key)
    ranks = {key: _flat(volume, positions.where) for key, positions in chosen.items()}
    union, first = np.unique(np.concatenate(list(ranks.values())), return_index=True)
    where = np.concatenate([positions.where for positions in chosen.values()])[first]
    pairs = [TrainingPair(volume, whole_strokes(volume))]  # only the grey values are read
    together = StrokePixels(where, np.zeros(len(where), np.uint16), {})
    window = common_window([volume], recipe.intensity, recipe.seed)
    features = gather(pairs, together, TileFeatures(featuriser, window, recipe.tiles), progress).features
    return {
        key: Samples(
            features[np.searchsorted(union, ranks[key])],
            positions.labels,
            positions.where[:, 1].astype(np.int32),  # a plane is an image here
        )
        for key, positions in chosen.items()
    }


def plane_stripes(
    volume: Volume, z: int, featuriser: Any, *, recipe: Recipe = SAMPLING, step: int = 1
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.float32]]]:
    """Yield the features of a plane's pixels, each from the tile that owns it, a stripe of rows at a time.

    Parameters
    ----------
    volume
        The stack.
    z
        The plane.
    featuriser
        Of hybrid features.
    recipe
        For the intensity window and the tiles.
    step
        Only every ``step``-th row and column of the plane.

    Yields
    ------
    tuple
        Rows and columns, as slices of ``plane[::step, ::step]``, and features ``(y, x, C)`` of them.
    """
    window = common_window([volume], recipe.intensity, recipe.seed)
    for tile in plane_tiles(volume.shape, recipe):
        features = np.moveaxis(featuriser(read_unit(volume, z, tile, window)).numpy(force=True), 0, -1)
        y0, y1, x0, x1 = tile.core
        top, _, left, _ = tile.window
        # The first multiple of step inside the core, and its number.
        rows, columns = slice(-(-y0 // step), -(-y1 // step)), slice(-(-x0 // step), -(-x1 // step))
        for start in range(rows.start, rows.stop, STRIPE):
            stop = min(start + STRIPE, rows.stop)
            inside = features[
                start * step - top : (stop - 1) * step + 1 - top : step,
                columns.start * step - left : (columns.stop - 1) * step + 1 - left : step,
            ]
            yield (slice(start, stop), columns), inside


def plane_tiles(shape: tuple[int, int, int], recipe: Recipe = SAMPLING) -> tuple[Tile, ...]:
    """Return the tiles of one plane, in the order of :func:`plane_stripes`."""
    one = (1, *shape[1:])
    return tuple(
        tile for block in blocks(one, recipe.tiles) for tile in tiles_of(block, one[1:], recipe.tiles)
    )


def _flat(volume: Volume, where: NDArray[np.int64]) -> NDArray[np.int64]:
    flat: NDArray[np.int64] = np.ravel_multi_index(tuple(where[:, 1:].T), volume.shape).astype(np.int64)
    return flat
