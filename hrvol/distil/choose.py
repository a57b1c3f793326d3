"""Choose the tiles that a teacher labels: spread over the volume, over what it looks like, and over doubt.

Candidates are spread evenly in depth and over the positions in a plane. Cheap descriptors of their grey
values are clustered; tiles are taken from all clusters, from large ones more often, and once some are
labelled, more often from those in which the teacher is unsure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans

from hrvol.distil.cache import DistilCache
from hrvol.distil.planes import PlaneTile
from hrvol.errors import UsageError
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.regions import stratified_tiles
from hrvol.volume.grid.tiling import Box, whole
from hrvol.volume.intensity import Window, to_unit
from hrvol.volume.volume import Volume

CANDIDATES = 256
"""Tiles of planes along z whose grey values are compared; along other axes half as many."""

CLUSTERS = 8
"""Clusters of candidates that look alike."""

LOOK = 192
"""Side in pixels of the part of a candidate that is looked at."""


@dataclass(frozen=True)
class Candidates:
    """Tiles that may be labelled.

    Attributes
    ----------
    tiles
        The tiles.
    cluster
        ``(n,)`` int64: the cluster of each.
    """

    tiles: tuple[PlaneTile, ...]
    cluster: NDArray[np.int64]


def candidates(
    volume: Volume,
    window: Window,
    tiles: TileSpec,
    axes: Sequence[int],
    seed: int,
    region: Box | None = None,
    progress: ProgressCallback | None = None,
    cache: DistilCache | None = None,
) -> Candidates:
    """Spread candidates over a volume and group those that look alike.

    Parameters
    ----------
    volume, window
        The volume, and the grey values that become 0 and 1.
    tiles
        Tiles of the teacher's recipe.
    axes
        Axes that labelled planes are perpendicular to.
    seed
        Of the positions and of the clusters.
    region
        Part of the volume to take tiles from; ``None``: all of it.
    progress
        Called with stage, voxels done, all voxels.
    cache
        Where the groups are kept: looking at a volume takes minutes where planes along y and x are spread
        over all of a file.
    """
    region = whole(volume.shape) if region is None else region
    chosen: list[PlaneTile] = []
    for axis in axes:
        order = (axis, *(other for other in range(3) if other != axis))
        shape = (volume.shape[order[0]], volume.shape[order[1]], volume.shape[order[2]])
        part = (region[order[0]], region[order[1]], region[order[2]])
        count = CANDIDATES if axis == 0 else CANDIDATES // 2  # half of all are planes along z
        spread = stratified_tiles(shape, part, tiles, count, seed + axis)
        chosen += [PlaneTile(axis, position, tile) for position, _, tile in spread]
    if not chosen:
        raise UsageError(f"{volume.source}: found no tile in the region, expected a larger one")
    key = {
        "volume": volume.identity()["sha256"] if cache is not None else "",
        "window": [float(value) for value in window],
        "candidates": [tile.describe() for tile in chosen],
        "seed": seed,
    }
    note = (cache.read_note(key) or {}).get("clusters") if cache is not None else None
    clusters = _known(note, len(chosen))
    if clusters is None:
        clusters = _clusters(volume, window, chosen, seed, progress)
        if cache is not None:
            cache.write_note(key, {"clusters": clusters.tolist()})
    return Candidates(tuple(chosen), clusters)


def _known(note: Any, count: int) -> NDArray[np.int64] | None:
    """Return the clusters that a note holds, or ``None`` if they are not those of so many candidates."""
    if not isinstance(note, list) or len(note) != count:
        return None
    if not all(isinstance(number, int) and 0 <= number < CLUSTERS for number in note):
        return None
    return np.array(note, np.int64)


def _clusters(
    volume: Volume,
    window: Window,
    chosen: Sequence[PlaneTile],
    seed: int,
    progress: ProgressCallback | None,
) -> NDArray[np.int64]:
    """Return the cluster ``(n,)`` of each tile: of those that look alike."""
    values = []
    tally = Tally(progress, "look at the volume", len(chosen) * LOOK**2)
    for number, tile in enumerate(chosen):
        values.append(_look(volume, window, tile))
        tally.finish(number, LOOK**2)
    table = np.stack([_descriptors(image) for image in values])
    if len(chosen) <= CLUSTERS:
        return np.zeros(len(chosen), np.int64)
    scale = table.std(axis=0)
    scaled = (table - table.mean(axis=0)) / np.where(scale > 0, scale, 1)
    different = len(np.unique(scaled, axis=0))
    fitted = KMeans(min(CLUSTERS, different), n_init=4, random_state=seed).fit(scaled)
    return np.asarray(fitted.labels_, np.int64)


class Turns:
    """The order in which candidates are labelled.

    Parameters
    ----------
    found
        The candidates.
    seed
        Of the order within a cluster.
    """

    def __init__(self, found: Candidates, seed: int) -> None:
        rng = np.random.default_rng([seed, 7])
        count = int(found.cluster.max()) + 1
        self._cluster = found.cluster
        self._left = [
            list(rng.permutation(np.flatnonzero(found.cluster == number))) for number in range(count)
        ]
        self._share = np.sqrt([len(members) for members in self._left])
        self._taken = np.zeros(count)
        self._doubt: list[list[float]] = [[] for _ in range(count)]

    def take(self, count: int) -> list[int]:
        """Return the numbers of the next ``count`` candidates, or of all that are left."""
        chosen: list[int] = []
        weight = self._share * self._factor()
        while len(chosen) < count and any(self._left):
            # The cluster that is furthest behind its share, of those that have candidates left.
            behind = [
                (self._taken[number] + 1) / weight[number] if members else np.inf
                for number, members in enumerate(self._left)
            ]
            number = int(np.argmin(behind))
            chosen.append(int(self._left[number].pop(0)))
            self._taken[number] += 1
        return chosen

    def report(self, candidate: int, entropy: float) -> None:
        """Tell how unsure the teacher is of a candidate: its mean entropy, 0 to 1."""
        self._doubt[self._cluster[candidate]].append(entropy)

    def _factor(self) -> NDArray[np.float64]:
        """Return the factor on the share of each cluster, from the teacher's doubt in it."""
        every = [entropy for of_cluster in self._doubt for entropy in of_cluster]
        mean = float(np.mean(every)) if every else 0.0
        if mean <= 0:
            return np.ones(len(self._doubt))
        factors = [np.mean(of_cluster) / mean if of_cluster else 1.0 for of_cluster in self._doubt]
        return np.asarray(0.5 + 0.5 * np.array(factors), np.float64)


def _look(volume: Volume, window: Window, tile: PlaneTile) -> NDArray[np.float32]:
    """Return the grey values ``(rows, columns)`` in [0, 1] of the middle of a tile's core."""
    spans = []
    for axis, span in enumerate(tile.core):
        side = span.stop - span.start
        keep = side if axis == tile.axis else min(side, LOOK)
        start = span.start + (side - keep) // 2
        spans.append(slice(start, start + keep))
    origin = (spans[0].start, spans[1].start, spans[2].start)
    raw = volume.read((spans[0], spans[1], spans[2]))
    values = to_unit(raw, window, source=volume.source, origin=origin)
    image: NDArray[np.float32] = values.squeeze(tile.axis)
    return image


def _descriptors(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return brightness, contrast and the strength of structures of three sizes."""
    values = [image.mean(), image.std(), *np.percentile(image, (5, 50, 95))]
    finer = image
    for sigma in (1, 3, 8):
        coarser = gaussian_filter(image, sigma)
        values.append(np.abs(finer - coarser).mean())
        finer = coarser
    return np.array(values, np.float64)
