"""Find classes without labels: class-agnostic segmentation from features and attention (paper, section 3.2).

k-means divides the features into many small clusters. Clusters with a high density of CLS attention are
foreground. The modal distance between foreground and background clusters is the *semantic distance*;
clusters closer than that are merged into one class (complete linkage).

Everything is fitted once, on a sample, and frozen in :class:`ClusterClassifier`, which assigns each pixel to
the class of its nearest centroid: as ``|F - mu|^2 = |F|^2 - (2 mu.F - |mu|^2)``, the centroid with the
highest score ``2 mu.F - |mu|^2``, which is linear in F and can be computed on tokens before upsampling.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, namespace, where_is
from hrvol.errors import InputError
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.attention import ClusterTally, foreground
from hrvol.segment.cluster_merging import check_attention, class_values
from hrvol.segment.estimators.estimators import kmeans, nearest
from hrvol.segment.positions import PositionField


@dataclass(frozen=True, eq=False)
class ClusterClassifier:
    """Classes found without labels: centroids and the class of each.

    Attributes
    ----------
    centroids
        ``(C, F)`` float32 in the space of scaled features, sorted by class.
    of_cluster
        ``(C,)`` int64 class value of each cluster, increasing.
    mean, scale
        ``(F,)`` float32: features are scaled by subtracting ``mean`` and dividing by ``scale``. 0 and 1 for
        deep features, which have unit length.
    temperature
        Mean squared distance of the sample to its centroids; scales distances to log-probabilities.
    tally
        Sampled pixels and attention of each cluster.
    semantic_distance
        Distance below which clusters were merged (lambda included); NaN if the number of classes was given or
        there was no foreground.
    position
        Positional component to subtract from deep features; ``None`` for none.
    """

    centroids: NDArray[np.float32]
    of_cluster: NDArray[np.int64]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    temperature: float
    tally: ClusterTally
    semantic_distance: float
    position: PositionField | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """Class values 1..N: the order of the columns of probabilities."""
        return tuple(int(value) for value in np.unique(self.of_cluster))

    @property
    def n_features(self) -> int:
        """Number of feature columns F."""
        return int(self.centroids.shape[1])

    @property
    def class_tally(self) -> ClusterTally:
        """Sampled pixels and attention of each class."""
        return self.tally.merged(self.of_cluster - 1, len(self.classes))

    @property
    def foreground(self) -> tuple[int, ...]:
        """Values of the classes whose attention density is above the mean over classes (section 4.3.1)."""
        above = foreground(self.class_tally.density)
        return tuple(value for value, is_above in zip(self.classes, above, strict=True) if is_above)

    def linear(self, columns: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the weight ``(C, n)`` and the bias ``(C,)`` that map columns to their share of the scores.

        Scores ``2 mu.f - |mu|^2`` of scaled features f are a sum over columns, so groups of columns can be
        mapped separately: deep ones before upsampling, classical ones after.
        """
        mu = self.centroids[:, columns].astype(np.float64)
        mean, scale = (values[columns].astype(np.float64) for values in (self.mean, self.scale))
        weight = 2 * mu / scale
        bias = -(mu**2).sum(axis=1) - weight @ mean
        return weight.astype(np.float32), bias.astype(np.float32)

    def position_scores(
        self, columns: slice, rows: slice, across: slice, shape: tuple[int, int]
    ) -> NDArray[np.float32] | None:
        """Return the positional component of the scores of clusters.

        Parameters
        ----------
        columns
            Columns of the deep features.
        rows, across
            Rows and columns of the tile window.
        shape
            Shape of the tile window, (y, x).

        Returns
        -------
        NDArray[np.float32] or None
            ``(y, x, C)``, to subtract from the scores; ``None`` for nothing.
        """
        if self.position is None:
            return None
        return self.position.mapped(self.linear(columns)[0], rows, across, shape)

    def class_probabilities(self, scores: Array) -> Array:
        """Return the probabilities of classes from the scores of clusters.

        A class has the probability ``exp(-d^2 / temperature)``, normalised, of its nearest centroid at
        distance d. So the most probable class is that of the nearest centroid.

        Parameters
        ----------
        scores
            ``(..., C)`` float32 of any library; see :meth:`linear`.

        Returns
        -------
        Array
            ``(..., N)`` float32 in [0, 1] with sum 1, in the library and on the device of ``scores``.
        """
        xp = namespace(scores)
        starts = np.searchsorted(self.of_cluster, self.classes).tolist()
        stops = [*starts[1:], len(self.of_cluster)]
        # Classes are adjacent in memory whatever the layout of the scores: the bits of the sum depend on it.
        best = xp.empty((*scores.shape[:-1], len(starts)), dtype=scores.dtype, device=where_is(scores))
        for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            best[..., k] = xp.max(scores[..., start:stop], axis=-1)
        best -= xp.max(best, axis=-1, keepdims=True)
        best /= self.temperature
        best = xp.exp(best)
        best /= xp.sum(best, axis=-1, keepdims=True)
        return best

    def assign(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the nearest cluster of each row of unscaled features ``(n, F)``."""
        return nearest(self.centroids, (features - self.mean) / self.scale)


def fit_clusters(
    features: NDArray[np.float32],
    attention: NDArray[np.floating[Any]] | None,
    spec: ClusterSpec,
    *,
    directions: slice | None = None,
    seed: int = 0,
    source: str = "sample",
    device: str = "cpu",
) -> ClusterClassifier:
    """Find classes in a sample of pixels (paper, algorithm 2, lines 1 to 9).

    Parameters
    ----------
    features
        ``(n, F)`` float32, finite.
    attention
        ``(n,)`` attention of the same pixels, in multiples of uniform attention; ``None`` without.
    spec
        Number of clusters, and how to merge them.
    directions
        Columns that form unit vectors and stay unscaled; ``None`` for no columns. The others are standardised
        and divided by the square root of their number, so that both groups weigh the same.
    seed
        Random seed of k-means.
    source
        Name of the data for messages.
    device
        Device for k-means: ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    ClusterClassifier
        Classes in decreasing order of their share of the sample. If all attention densities are equal, there
        is one class, unless ``spec.classes`` is given.

    Raises
    ------
    InputError
        A feature is not finite, or there are fewer distinct pixels than clusters.
    UsageError
        Both attention and the number of classes are missing.
    """
    count = len(features)
    check_attention(attention is not None, spec)
    if count < spec.clusters:
        raise InputError(f"{source}: found {count} pixels, expected at least {spec.clusters} (clusters)")
    if not np.isfinite(features).all():
        raise InputError(f"{source}: found features that are not finite, expected numbers")
    mean, scale = _scaling(features, directions or slice(0, 0))
    scaled = (features - mean) / scale
    centroids = kmeans(scaled, spec.clusters, seed, device)
    assigned = nearest(centroids, scaled, device)
    used = np.unique(assigned)
    if len(used) < spec.clusters:
        raise InputError(
            f"{source}: found {len(used)} different groups of pixels, expected {spec.clusters} clusters; "
            "use fewer clusters or a larger part of the volume"
        )
    tally = ClusterTally.of(assigned, attention, spec.clusters)
    temperature = float(((scaled - centroids[assigned]) ** 2).sum(axis=1, dtype=np.float64).mean())
    values, threshold = class_values(centroids, tally, spec)
    return _by_class(
        ClusterClassifier(
            centroids=centroids,
            of_cluster=values,
            mean=mean,
            scale=scale,
            temperature=max(temperature, 1e-12),
            tally=tally,
            semantic_distance=threshold,
        )
    )


def merge_again(classifier: ClusterClassifier, spec: ClusterSpec) -> ClusterClassifier:
    """Merge the clusters of a fitted classifier to other classes; the clusters themselves stay.

    Parameters
    ----------
    classifier
        The fitted clusters.
    spec
        How to merge them; its numbers of clusters and samples, and ``position_degree``, are not used.

    Returns
    -------
    ClusterClassifier
        The same clusters, sorted by their new classes; those of one class in the order of ``classifier``.
        With the settings of the fit it is identical to ``classifier``, unless distances of centroids are
        tied: of equal distances, complete linkage merges those of the first clusters first, and a fitted
        classifier has its clusters in another order than k-means returned them.

    Raises
    ------
    UsageError
        More classes than clusters are requested, or both attention and the number of classes are missing.
    """
    values, threshold = class_values(classifier.centroids, classifier.tally, spec)
    return _by_class(replace(classifier, of_cluster=values, semantic_distance=threshold))


def _by_class(classifier: ClusterClassifier) -> ClusterClassifier:
    """Return a classifier with its clusters sorted by class."""
    order = np.argsort(classifier.of_cluster, kind="stable")
    tally = classifier.tally
    return replace(
        classifier,
        centroids=classifier.centroids[order],
        of_cluster=classifier.of_cluster[order],
        tally=ClusterTally(tally.pixels[order], None if tally.attention is None else tally.attention[order]),
    )


def _scaling(
    features: NDArray[np.float32], directions: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and scale of each column: 0 and 1 for directions, standardisation for the others."""
    mean, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
    others = np.ones(features.shape[1], bool)
    others[directions] = False
    if others.any():
        exact = features[:, others].astype(np.float64)
        mean[others] = exact.mean(axis=0)
        spread = exact.std(axis=0)
        # Columns that are constant, or vary by rounding only, are not scaled up.
        spread[spread <= 1e-5 * np.abs(mean[others])] = 1.0
        scale[others] = spread * np.sqrt(others.sum())
    return mean.astype(np.float32), scale.astype(np.float32)
