"""Keep the features of stroke pixels; only those of new pixels are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hrvol.interactive.parts import TileParts
from hrvol.interactive.regions import TileKey, tile_keys
from hrvol.interactive.results import StageName
from hrvol.interactive.stages import Stage
from hrvol.segment.strokes import StrokePixels

_MOST = 3
"""Times the pixels of one version of strokes, whose features are kept: those of other versions, too."""

_FEW = 4000  # pixels whose features are always kept


class Rows:
    """Features of some pixels of one tile.

    Parameters
    ----------
    keys
        ``(n,)`` int64 in order: a number for each pixel.
    features
        ``(n, C)`` float32.
    """

    def __init__(self, keys: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        self.keys, self.features = keys, features

    def find(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return where the features of pixels are, and which pixels are there at all."""
        where = np.minimum(np.searchsorted(self.keys, keys), max(len(self.keys) - 1, 0))
        there = self.keys[where] == keys if len(self.keys) else np.zeros(len(keys), bool)
        return where, there


class StrokeRows:
    """Features of stroke pixels by stage and tile, from the tiles that are in memory.

    Parameters
    ----------
    parts
        Features of tiles.
    """

    def __init__(self, parts: TileParts) -> None:
        self._parts = parts
        self._lock = threading.Lock()
        self._rows: dict[StageName, dict[TileKey, Rows]] = {}

    def collect(
        self, stage: Stage, pixels: StrokePixels
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[TileKey, ...]]:
        """Return the features of pixels as far as they are known.

        Features of other pixels are kept for a while: threads may work with different versions of strokes.

        Returns
        -------
        tuple
            Features ``(m, C)`` of known pixels, which of the pixels they are ``(n,)``, and the tiles that
            have to be prepared for the others.
        """
        with self._lock:
            return self._collect(stage, pixels)

    def _collect(
        self, stage: Stage, pixels: StrokePixels
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], tuple[TileKey, ...]]:
        kept = self._rows.get(stage.name, {})
        rows = dict(kept)
        own: dict[TileKey, Rows] = {}
        found: list[NDArray[np.float32]] = []
        known = np.zeros(len(pixels), bool)
        missing, indices = [], []
        width = self._parts.volume.shape[2]
        for tile, chosen in by_tile(self._parts, pixels):
            places = pixels.where[chosen, 1:]
            keys = places[:, 1] * width + places[:, 2]
            of_tile = self._of_tile(stage, tile, kept.get(tile), keys, places)
            if of_tile is None:
                missing.append(tile)
                continue
            where, there = of_tile.find(keys)
            if not there.all():
                missing.append(tile)
            known[chosen[there]] = True
            indices.append(chosen[there])
            found.append(of_tile.features[where[there]])
            rows[tile], own[tile] = of_tile, Rows(keys[there], found[-1])
        many = sum(len(each.keys) for each in rows.values()) > _MOST * max(len(pixels), _FEW)
        self._rows[stage.name] = own if many else rows
        features = np.concatenate(found) if found else np.empty((0, 0), np.float32)
        order = np.concatenate(indices) if indices else np.empty(0, np.intp)
        return features[np.argsort(order, kind="stable")], known, tuple(missing)

    def _of_tile(
        self,
        stage: Stage,
        tile: TileKey,
        rows: Rows | None,
        keys: NDArray[np.int64],
        places: NDArray[np.int64],
    ) -> Rows | None:
        """Return the features of pixels of a tile, those that are known if the tile is not in memory."""
        there = np.zeros(len(keys), bool) if rows is None else rows.find(keys)[1]
        if there.all():
            return rows
        values = self._parts.get(stage, tile)
        if values is None:
            return rows
        top, _, left, _ = self._parts.tile(tile).window
        new = values.at(places[~there, 1] - top, places[~there, 2] - left)
        if rows is None:
            return Rows(keys, new)  # in order: pixels are sorted by row and column
        merged = np.concatenate([rows.keys, keys[~there]])
        order = np.argsort(merged, kind="stable")
        return Rows(merged[order], np.concatenate([rows.features, new])[order])


def by_tile(parts: TileParts, pixels: StrokePixels) -> Iterator[tuple[TileKey, NDArray[np.intp]]]:
    """Yield tiles and the indices of the pixels that they own, in order of z, y, x of the tiles."""
    if not len(pixels):
        return
    keys = tile_keys(parts.volume.shape, parts.tiles, pixels.where[:, 1:])
    order = np.lexsort(keys.T[::-1])  # stable: pixels of a tile stay in order
    cuts = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(axis=1)) + 1
    for chosen in np.split(order, cuts):
        z, row, column = (int(number) for number in keys[chosen[0]])
        yield (z, row, column), chosen
