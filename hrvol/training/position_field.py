"""Estimate and subtract the positional component of deep features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hrvol.progress import ProgressCallback, renamed
from hrvol.recipe.recipe import Recipe
from hrvol.segment.positions import PositionField, fit_field, terms
from hrvol.training.pixel_pairs import joined_pairs, pixel_pairs
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.tiling import Box, Tile
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

    from hrvol.features.featuriser import Featuriser


POSITION_TILES, POSITION_REGIONS = 8, 4
"""Default number of tiles to fit the field to, and most regions to take them from, evenly spaced."""

_STRIPE = 64  # rows of the field at once, because its channels are float64 before they are subtracted


def position_field(
    regions: Sequence[tuple[Volume, Box]],
    features: Mapping[Volume, TileFeatures],
    recipe: Recipe,
    progress: ProgressCallback | None = None,
    *,
    most_tiles: int = POSITION_TILES,
) -> PositionField | None:
    """Fit the component of deep features that depends on the place in a tile, one field for all regions.

    Parameters
    ----------
    regions
        The voxels to sample from.
    features
        How features are computed from each volume, with the same featuriser of any kind.
    recipe
        Gives the degree of the field (``cluster.position_degree``) and the seed.
    progress
        Called with stage, voxels done, all voxels.
    most_tiles
        Most tiles around which windows are placed, in all regions together.

    Returns
    -------
    PositionField or None
        ``None`` if the degree is 0, there are no deep features, or no two windows share pixels.
    """
    degree = recipe.cluster.position_degree
    featuriser = features[regions[0][0]].featuriser
    if not degree or "deep" not in featuriser.groups:
        return None
    quick = _one_view(featuriser)
    count = min(len(regions), POSITION_REGIONS)
    chosen = [regions[i * len(regions) // count] for i in range(count)]
    pairs = joined_pairs(
        [
            pixel_pairs(
                volume,
                region,
                replace(features[volume], featuriser=quick),
                most_tiles=math.ceil(most_tiles / count),
                seed=recipe.seed,
                progress=part_of(progress, number, count),
            )
            for number, (volume, region) in enumerate(chosen, start=1)
        ]
    )
    if not len(pairs):
        return None
    field = fit_field(pairs.differences, pairs.here, pairs.there, degree)
    return _mirrored(field) if featuriser.spec.deep.flips is True else field


def subtract_field(field: PositionField, features: Tensor, tile: Tile) -> None:
    """Subtract a field from deep features ``(C, y, x)`` of a tile's core, in place."""
    import torch

    rows, columns = tile.core_in_window
    each = np.eye(len(features), dtype=np.float32)
    for start in range(rows.start, rows.stop, _STRIPE):
        stripe = slice(start, min(start + _STRIPE, rows.stop))
        values = field.mapped(each, stripe, columns, tile.window_shape)
        in_core = slice(start - rows.start, stripe.stop - rows.start)
        features[:, in_core] -= torch.from_numpy(values).permute(2, 0, 1).to(features.device)


def _one_view(featuriser: Featuriser) -> Featuriser:
    """Return a featuriser of one offset and without flips, whose effect :func:`_mirrored` computes."""
    quick = featuriser.one_offset()
    if quick.spec.deep.flips is not True:
        return quick
    deep = quick.spec.deep.model_copy(update={"flips": False})
    return type(featuriser)(quick.spec.model_copy(update={"deep": deep}), featuriser.backbone)


def _mirrored(field: PositionField) -> PositionField:
    """Return the mean of a field and its mirror images: the field of features averaged over flips."""
    place = np.array([[0.3, 0.7]])  # any place that is neither on an axis nor at a zero of a polynomial
    own = terms(place, field.degree)
    views = [terms(place * flip, field.degree) for flip in ((1, 1), (-1, 1), (1, -1), (-1, -1))]
    kept = np.rint(sum(views) / (4 * own)).astype(np.float32)  # 1 for terms even in y and in x, else 0
    return replace(field, coefficients=field.coefficients * kept.T)


def part_of(progress: ProgressCallback | None, number: int, count: int) -> ProgressCallback | None:
    """Return a callback that adds the number of a volume or plane to the stage, if there are several."""
    return progress if count == 1 else renamed(progress, suffix=f" {number} of {count}")
