"""Find places to draw next: they stand for many uncertain pixels that are unlike what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from hrvol.interactive.drawing import Drawn
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import Fitted
from hrvol.interactive.parts import TileParts, TileValues
from hrvol.interactive.region import Region
from hrvol.interactive.regions import TileKey
from hrvol.interactive.results import Place
from hrvol.run.predict import entropy

STEP = 4
"""Pixels between values of the uncertainty."""

SIDE = 3
"""Values over which the uncertainty is averaged: about the width of a stroke."""

_EVERY = 2  # of the values, a candidate

_NEAR = 12  # pixels from a stroke or another place within which no place is chosen

_MOST = 2000  # candidates that are compared with each other

_COMPARED = 2000  # pixels of strokes that candidates are compared with


@dataclass(frozen=True, eq=False)
class Candidates:
    """Possible places.

    Attributes
    ----------
    places
        ``(n, 3)`` int64: z, y, x.
    uncertainty
        ``(n,)`` float32, in 0..1.
    features
        ``(n, D)`` float32.
    """

    places: NDArray[np.int64]
    uncertainty: NDArray[np.float32]
    features: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return several as one."""
        return cls(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.uncertainty for part in parts]),
            np.concatenate([part.features for part in parts]),
        )


def candidates_of(
    parts: TileParts,
    key: TileKey,
    values: TileValues,
    fitted: Fitted,
    gate: Gate,
    *,
    within: Region | None = None,
    threads: int = 1,
) -> Candidates | None:
    """Return the candidates of a tile, or ``None`` if it has none.

    Parameters
    ----------
    parts
        Features of tiles.
    key, values
        A tile and its features.
    fitted
        Predicts the uncertainty.
    gate
        Checked now and then.
    within
        Region that the candidates have to be in.
    threads
        Threads of the prediction.
    """
    tile = parts.tile(key)
    rows, columns = tile.core_in_window
    proba = fitted.classifier.predict(
        values,
        slice(rows.start, rows.stop, STEP),
        slice(columns.start, columns.stop, STEP),
        gate,
        threads=threads,
    )
    smooth = uniform_filter(entropy(np.moveaxis(proba, -1, 0)), SIDE, mode="nearest")
    y, x = (axis.ravel() for axis in np.mgrid[: smooth.shape[0] : _EVERY, : smooth.shape[1] : _EVERY])
    uncertainty = smooth[y, x].astype(np.float32)
    window = np.stack([rows.start + STEP * y, columns.start + STEP * x], axis=1)
    places = np.empty((len(y), 3), np.int64)
    places[:, 0] = key[0]
    places[:, 1:] = window + np.array([tile.window[0], tile.window[2]])
    if within is not None:
        inside = (
            (places[:, 1] >= within.rows.start)
            & (places[:, 1] < within.rows.stop)
            & (places[:, 2] >= within.columns.start)
            & (places[:, 2] < within.columns.stop)
        )
        places, uncertainty, window = places[inside], uncertainty[inside], window[inside]
    if not len(places):
        return None
    features = fitted.classifier.describe(values.at(window[:, 0], window[:, 1]))
    return Candidates(places, uncertainty, features)


def choose_places(
    candidates: Candidates, drawn: Drawn, features: NDArray[np.float32], count: int, seed: int = 0
) -> tuple[Place, ...]:
    """Choose candidates one by one: the one that brings most uncertainty near to what is known.

    The distance of a candidate to what is known is that of its features, each column over its standard
    deviation, to the nearest pixel of a stroke or place that was chosen before. A place is worth as much as
    it shortens these distances, summed over all candidates times their uncertainty (greedy facility
    location). So a place stands for many others; an uncertain outlier, which teaches little, does not win.

    Parameters
    ----------
    candidates
        Possible places.
    drawn
        Strokes, near to which no place is chosen.
    features
        ``(m, D)`` of pixels of strokes.
    count
        Number of places; there may be fewer.
    seed
        Chooses among more candidates than can be compared.
    """
    if len(candidates.places) > _MOST:
        chosen = np.random.default_rng(seed).choice(len(candidates.places), _MOST, replace=False)
        chosen.sort()
        candidates = Candidates(
            candidates.places[chosen], candidates.uncertainty[chosen], candidates.features[chosen]
        )
    scale = candidates.features.std(axis=0)
    scale[scale == 0] = 1
    points = candidates.features / scale
    known = features[:: max(1, len(features) // _COMPARED)] / scale if len(features) else features
    apart = _distances(points, points)
    distance = _distances(points, known).min(axis=1) if len(known) else apart.max(axis=1)
    free = ~_near(candidates.places, drawn.painted.places)
    found: list[Place] = []
    while len(found) < count and free.any():
        gains = (candidates.uncertainty[:, None] * np.maximum(distance[:, None] - apart, 0)).sum(axis=0)
        best = int(np.argmax(np.where(free, gains, -1)))
        z, y, x = (int(value) for value in candidates.places[best])
        found.append(Place(z, y, x, float(candidates.uncertainty[best])))
        distance = np.minimum(distance, apart[:, best])
        free &= ~_near(candidates.places, candidates.places[best : best + 1])
    return tuple(found)


def _distances(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distances ``(n, m)`` of points to others."""
    a, b = points.astype(np.float32), others.astype(np.float32)
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0))
    return distances


def _near(places: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which places are near to others of the same plane."""
    cell = (1, _NEAR, _NEAR)
    taken = {tuple(row) for row in np.unique(others // cell, axis=0).tolist()} if len(others) else set()
    around = [(0, dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    cells = (places // cell).tolist()
    wide = {(z + a, y + b, x + c) for z, y, x in taken for a, b, c in around}
    return np.array([tuple(row) in wide for row in cells], bool)
