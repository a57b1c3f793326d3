"""Split the pixels that a model is trained on into folds, keeping each stroke together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe.specs import TileSpec
from hrvol.segment.strokes import StrokePixels
from hrvol.training.strokes import TrainingPair
from hrvol.training.tuning.folds import UNUSED, Folds, count_by_plane, split_strokes
from hrvol.training.tuning.held_out import (
    FOLDS,
    TileKey,
    choose_tiles,
    drawn_pixels,
    indices_of,
    read_tiles,
    tile_of,
)

MOST_TILES = 24
"""Most tiles whose strokes are read again to tell which pixels are of one stroke."""


def fold_pixels(pairs: Sequence[TrainingPair], pixels: StrokePixels, tiles: TileSpec, seed: int) -> Folds:
    """Split chosen pixels of strokes into folds.

    Parameters
    ----------
    pairs
        Volumes and their strokes.
    pixels
        Those chosen for the training, a sample of the drawn ones.
    tiles
        Of the recipe.
    seed
        Of all choices.

    Returns
    -------
    Folds
        Of whole planes where enough of them have all classes, else of whole strokes in some tiles; see
        :func:`hrvol.training.tuning.folds.split_strokes`. Pixels in other tiles are unused.
    """
    if (count_by_plane(pixels.where, pixels.labels)[1] > 0).all(axis=1).sum() >= FOLDS:
        return split_strokes(pixels.where, pixels.labels, FOLDS, seed)
    # Of a sample of its pixels, a stroke cannot be recognised: all that are drawn are needed.
    keys = [tile_of(row, pairs[row[0]].volume.shape, tiles) for row in pixels.where.tolist()]
    counts: dict[TileKey, dict[int, int]] = {}
    for key, value in zip(keys, pixels.labels.tolist(), strict=True):
        of_tile = counts.setdefault(key, {})
        of_tile[value] = of_tile.get(value, 0) + 1
    chosen = choose_tiles(counts, MOST_TILES, seed)
    drawn, labels = drawn_pixels(list(read_tiles(pairs, chosen, tiles)))
    split = split_strokes(drawn, labels, FOLDS, seed)
    of = np.full(len(pixels), UNUSED, np.int8)
    some = set(chosen)
    inside = np.flatnonzero([key in some for key in keys])
    of[inside] = split.of[indices_of(drawn, pixels.where[inside])]
    return replace(split, of=of)


def capped(labels: NDArray[np.integer], allowed: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.intp]:
    """Return the indices of at most so many allowed pixels of each class, drawn at random, in order."""
    rng = np.random.default_rng([seed, 23])
    kept = []
    for value in np.unique(labels):
        of_class = np.flatnonzero(allowed & (labels == value))
        kept.append(of_class if len(of_class) <= most else rng.choice(of_class, most, replace=False))
    return np.sort(np.concatenate(kept))
