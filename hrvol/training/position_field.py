"""What deep features say of the place in a tile, learnt from the planes that are looked at, and taken off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hrvol.progress import ProgressCallback, renamed
from hrvol.recipe.recipe import Recipe
from hrvol.segment.positions import PositionField, fit_field, terms
from hrvol.training.pixel_pairs import pixel_pairs
from hrvol.volume.grid.tiling import Box, Tile
from hrvol.volume.intensity import Window
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

    from hrvol.features.featuriser import Featuriser


POSITION_TILES, POSITION_REGIONS = 8, 4
"""The field is learnt from so many tiles by default; in so many regions at most, evenly among those given."""

_STRIPE = 64  # rows of the field at once: its channels are in float64 on the way


def position_field(
    regions: Sequence[tuple[Volume, Box]],
    windows: Mapping[Volume, Window],
    featuriser: Featuriser,
    spec: Recipe,
    progress: ProgressCallback | None = None,
    *,
    most_tiles: int = POSITION_TILES,
) -> PositionField | None:
    """Fit what deep features say of the place in a tile, one field for all regions.

    Parameters
    ----------
    regions
        Where to learn it.
    windows
        Intensity window of each volume.
    featuriser
        The features, which may be of any kind.
    spec
        The recipe; its ``cluster.position_degree`` is the degree of the field.
    progress
        Called with stage, voxels seen, all voxels.
    most_tiles
        Tiles whose surroundings are seen, in all regions together.

    Returns
    -------
    PositionField or None
        ``None`` if the degree is 0, there are no deep features, or it cannot be told.
    """
    degree = spec.cluster.position_degree
    if not degree or "deep" not in featuriser.groups:
        return None
    quick = _one_view(featuriser)
    count = min(len(regions), POSITION_REGIONS)
    chosen = [regions[i * len(regions) // count] for i in range(count)]
    found = [
        pixel_pairs(
            volume,
            region,
            quick,
            windows[volume],
            spec.tiles,
            most_tiles=math.ceil(most_tiles / count),
            seed=spec.seed,
            progress=part_of(progress, number, count),
        )
        for number, (volume, region) in enumerate(chosen, start=1)
    ]
    differences, here, there = (
        np.concatenate([getattr(pairs, name) for pairs in found]) for name in ("differences", "here", "there")
    )
    if not len(differences):
        return None
    field = fit_field(differences, here, there, degree)
    return _mirrored(field) if featuriser.spec.deep.flips is True else field


def take_off(field: PositionField, features: Tensor, tile: Tile) -> None:
    """Subtract a field from deep features ``(C, y, x)`` of a tile's core, in place."""
    import torch

    rows, columns = tile.core_in_window
    each = np.eye(len(features), dtype=np.float32)
    for start in range(rows.start, rows.stop, _STRIPE):
        stripe = slice(start, min(start + _STRIPE, rows.stop))
        place = field.mapped(each, stripe, columns, tile.window_shape)
        here = slice(start - rows.start, stripe.stop - rows.start)
        features[:, here] -= torch.from_numpy(place).permute(2, 0, 1).to(features.device)


def _one_view(featuriser: Featuriser) -> Featuriser:
    """Return a featuriser of one offset; and without flips, whose part is known (:func:`_mirrored`)."""
    quick = featuriser.one_offset()
    if quick.spec.deep.flips is not True:
        return quick
    deep = quick.spec.deep.model_copy(update={"flips": False})
    return type(featuriser)(quick.spec.model_copy(update={"deep": deep}), featuriser.backbone)


def _mirrored(field: PositionField) -> PositionField:
    """Return the mean of a field and its mirror images: what is left of it where flips are averaged."""
    place = np.array([[0.3, 0.7]])  # any, but on an axis or at a zero of a polynomial
    own = terms(place, field.degree)
    views = [terms(place * flip, field.degree) for flip in ((1, 1), (-1, 1), (1, -1), (-1, -1))]
    kept = np.rint(sum(views) / (4 * own)).astype(np.float32)  # 1 for terms even in y and in x, else 0
    return replace(field, coefficients=field.coefficients * kept.T)


def part_of(progress: ProgressCallback | None, number: int, count: int) -> ProgressCallback | None:
    """Return a callback that adds the number of a volume or plane to the stage, if there are several."""
    return progress if count == 1 else renamed(progress, suffix=f" {number} of {count}")
