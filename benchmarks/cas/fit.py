"""Cluster a scene with the package's own k-means, from different features: the slow part.

The features of a scene are computed once and kept in memory while k-means is repeated with each seed. Only
the clusters are stored; ways of merging them are tried later, in moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as default
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cas.data import Scene
from benchmarks.quality.sampling import plane_tiles
from hrvol.errors import InputError
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.recipe.specs import ClusterSpec, FeatureSpec
from hrvol.segment.attention import ClusterTally
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.cluster_merging import Distance
from hrvol.segment.positions import PositionField
from hrvol.training.position_field import position_field, subtract_field
from hrvol.training.sampling import sample_pixels
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.tiling import Tile, whole
from hrvol.volume.intensity import common_window, read_unit
from hrvol.volume.volume import open_volume

RECIPE = PRESETS["cas"]
"""Intensity window, tiles, number of clusters and of sampled pixels are those of this preset."""


@dataclass(frozen=True)
class Kind:
    """Features to compare.

    Attributes
    ----------
    features
        Their recipe; ``None`` for the grey value itself.
    distance
        Between centroids.
    position_degree
        Of the position field subtracted from deep features; 0 for none.
    """

    features: FeatureSpec | None
    distance: Distance
    position_degree: int = 0

    @property
    def attends(self) -> bool:
        """Whether the features come with attention of a network."""
        return self.features is not None and self.features.uses_deep

    @property
    def cluster(self) -> ClusterSpec:
        """Settings of clustering and merging."""
        how = {"distance": self.distance, "position_degree": self.position_degree}
        return RECIPE.cluster.model_copy(update=how)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that determines the clusters, as JSON values."""
        features = self.features.to_dict() if self.features is not None else "intensity"
        return {"features": features, "cluster": self.cluster.to_dict()}


KINDS = {
    "deep": Kind(RECIPE.features, RECIPE.cluster.distance, RECIPE.cluster.position_degree),
    "last": Kind(RECIPE.with_(**{"features.deep.block": "last"}).features, RECIPE.cluster.distance),
    "classical": Kind(FeatureSpec(kind="classical"), "euclidean"),
    "intensity": Kind(None, "euclidean"),
    "strided": Kind(PRESETS["cas-paper"].features, PRESETS["cas-paper"].cluster.distance),
}

Look = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32] | None]]
"""From an image ``(Y, X)`` in [0, 1] to features ``(Y, X, C)`` and attention ``(Y, X)``, if there is one."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Clusters 0..C-1 of one seed.

    Attributes
    ----------
    centroids
        ``(C, F)`` float32, of scaled features.
    tally
        Sampled pixels and attention of each.
    assigned
        ``(Z, Y, X)`` uint8: the nearest cluster of every pixel.
    """

    centroids: NDArray[np.float32]
    tally: ClusterTally
    assigned: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Fit:
    """Clusters of a scene.

    Attributes
    ----------
    partitions
        By seed.
    attention
        ``(Z, Y, X)`` float32, times uniform.
    seconds, cpu
        Of each stage: wall-clock and CPU time; of k-means and labelling all seeds together.
    machine
        Its description.
    """

    partitions: dict[int, Partition]
    attention: NDArray[np.float32]
    seconds: dict[str, float] = default(default_factory=dict)
    cpu: dict[str, float] = default(default_factory=dict)
    machine: str = ""


def look_of(kind: Kind, scene: Scene, recipe: Recipe = RECIPE) -> Look:
    """Return a function that computes the features of a scene; loads the network, if there is one."""
    spec = kind.features
    if spec is None:
        return lambda image: (image[..., None], None)
    featuriser = load_featuriser(spec)

    @cache
    def field() -> PositionField | None:
        volume = open_volume(scene.images)
        window = common_window([volume], recipe.intensity, recipe.seed)
        how = recipe.model_copy(update={"features": spec, "cluster": kind.cluster})
        most = kind.cluster.sample_tiles
        features = TileFeatures(featuriser, window, how.tiles)
        return position_field([(volume, whole(volume.shape))], {volume: features}, how, most_tiles=most)

    def look(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        if not kind.attends:
            return np.moveaxis(featuriser(image).numpy(force=True), 0, -1), None
        seen = featuriser.upsampled(image, unit=True, attention=True)
        assert seen.attention is not None
        attention = seen.attention.mean(dim=0).numpy(force=True)
        place = field() if kind.position_degree else None
        if place is not None:
            _, height, width = seen.features.shape
            inside = Tile((0, height, 0, width), (0, height, 0, width), 0, 0)
            subtract_field(place, seen.features, inside)
        return np.moveaxis(seen.features.numpy(force=True), 0, -1), attention

    return look


def fit_scene(
    scene: Scene,
    kind: Kind,
    look: Look,
    *,
    seeds: Sequence[int],
    attention: NDArray[np.float32] | None = None,
    recipe: Recipe = RECIPE,
    log: Callable[[str], None] = print,
) -> Fit:
    """Find clusters as ``hrvol cluster`` does, with each seed, and label every pixel.

    Parameters
    ----------
    scene
        The image or volume; a plane is one tile.
    kind, look
        The features, and the function that computes them.
    seeds
        Of the sample and of k-means.
    attention
        ``(Z, Y, X)``, for features that have none of their own.
    recipe
        For the intensity window, the tiles, and the sample.
    log
        Called with messages about the progress.

    Raises
    ------
    InputError
        A plane is larger than a tile; there is no attention; or there are too few different pixels.
    """
    volume = open_volume(scene.images)
    tiles = plane_tiles(volume.shape, recipe)
    if len(tiles) > 1:
        raise InputError(f"{scene.name}: found planes of {len(tiles)} tiles, expected one each")
    window = common_window([volume], recipe.intensity, recipe.seed)
    planes = [read_unit(volume, z, tiles[0], window) for z in range(volume.shape[0])]
    clock = _Clock()
    features, attended = [], []
    for z, plane in enumerate(planes):
        with clock("features"):
            found, own = look(plane)
        features.append(found)
        attended.append(own if own is not None else attention[z] if attention is not None else None)
    maps = [part for part in attended if part is not None]
    if len(maps) < len(planes):
        raise InputError(f"{scene.name}: found features without attention, expected that of the network")
    log(f"{scene.name}: features {features[0].shape[-1]} x {len(planes)}: {clock.wall['features']:.1f} s")
    seen = _Seen(planes, features, maps)
    partitions = {}
    for seed in seeds:
        partitions[seed] = _partition(volume, seen, kind, recipe, window, seed, clock)
    log(f"{scene.name}: " + ", ".join(f"{stage} {took:.1f} s" for stage, took in clock.wall.items()))
    return Fit(partitions, np.stack(maps).astype(np.float32), clock.wall, clock.cpu)


def _partition(
    volume: Any, seen: _Seen, kind: Kind, recipe: Recipe, window: Any, seed: int, clock: _Clock
) -> Partition:
    cluster = kind.cluster
    with clock("k-means"):
        sample = sample_pixels(
            volume,
            whole(volume.shape),
            TileFeatures(seen, window, recipe.tiles),  # type: ignore[arg-type]  # it has .pixels, which suffices
            pixels=cluster.samples,
            most_tiles=cluster.sample_tiles,
            seed=seed,
            unit=True,
            attention=True,
        )
        columns = sample.features.shape[1]
        if columns == 1:  # a grey value has few levels: no more clusters than that can be told apart
            levels = len(np.unique(sample.features))
            cluster = cluster.model_copy(update={"clusters": min(cluster.clusters, levels)})
        clusters = fit_clusters(
            sample.features,
            sample.attention,
            cluster,
            directions=slice(0, columns) if kind.attends else None,
            seed=seed,
        )
    with clock("labels"):
        assigned = [
            clusters.assign(plane.reshape(-1, columns)).astype(np.uint8).reshape(plane.shape[:2])
            for plane in seen.features
        ]
    return Partition(clusters.centroids, clusters.tally, np.stack(assigned))


class _Seen:
    """Stands in for a featuriser: looks up features of planes computed before."""

    def __init__(
        self,
        planes: Sequence[NDArray[np.float32]],
        features: Sequence[NDArray[np.float32]],
        attention: Sequence[NDArray[np.float32]],
    ) -> None:
        self.planes, self.features, self.attention = planes, features, attention

    def pixels(
        self, image: NDArray[np.float32], y: Any, x: Any, **_: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what the plane that is this image has at these pixels."""
        z = next(z for z, plane in enumerate(self.planes) if np.array_equal(plane, image))
        return self.features[z][y, x], self.attention[z][y, x]


class _Clock:
    """Adds up the time of stages."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.monotonic(), time.process_time()
        yield
        for times, now, start in zip(
            (self.wall, self.cpu), (time.monotonic(), time.process_time()), began, strict=True
        ):
            times[stage] = times.get(stage, 0.0) + now - start
