"""Merge clusters into classes, by their distances and their attention (paper, section 3.2).

The modal distance between foreground and background clusters is the *semantic distance*; clusters closer than
that are merged (complete linkage), or until a number of classes is left.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from hrvol.errors import UsageError
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.attention import ClusterTally, foreground

Edge = Literal["lower", "centre", "upper"]

Distance = Literal["cosine", "euclidean"]


def centroid_distances(centroids: NDArray[np.float32], distance: Distance) -> NDArray[np.float64]:
    """Return distances ``(C, C)`` between centroids ``(C, F)``, float64: cosine in 0..2, or Euclidean."""
    exact = centroids.astype(np.float64)
    if distance == "cosine":
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        exact = exact / np.where(lengths > 0, lengths, 1.0)
    squared: NDArray[np.float64] = ((exact[:, None] - exact[None]) ** 2).sum(axis=-1)
    # Between unit vectors |a - b|^2 = 2 (1 - cos), which keeps its digits where cos is near 1.
    return squared / 2 if distance == "cosine" else np.sqrt(squared)


def semantic_distance(between: NDArray[np.float64], bins: int = 20, edge: Edge = "upper") -> float:
    """Return the modal distance between foreground and background clusters.

    Parameters
    ----------
    between
        Distances of every foreground to every background cluster, any shape.
    bins
        Number of equal bins from the smallest to the largest distance.
    edge
        Which value of the fullest bin (the first of several) to return.

    Returns
    -------
    float
        In the units of ``between``; NaN without distances.
    """
    if not between.size:
        return float("nan")
    if between.min() == between.max():  # numpy would widen the range to 1
        return float(between.min())
    counts, edges = np.histogram(between, bins=bins)
    fullest = int(counts.argmax())
    low, high = float(edges[fullest]), float(edges[fullest + 1])
    return {"lower": low, "centre": (low + high) / 2, "upper": high}[edge]


def merge(
    distances: NDArray[np.float64], *, below: float | None = None, n_classes: int | None = None
) -> NDArray[np.int64]:
    """Merge clusters by complete linkage: the distance of two groups is that of their farthest members.

    Parameters
    ----------
    distances
        ``(C, C)``, symmetric.
    below
        Merge groups closer than this.
    n_classes
        Or merge until this many groups remain.

    Returns
    -------
    NDArray[np.int64]
        ``(C,)`` group of each cluster, numbered from 0 in order of first appearance.
    """
    count = len(distances)
    if count == 1:
        return np.zeros(1, np.int64)
    tree = linkage(squareform(distances, checks=False), method="complete")
    if n_classes is None:
        # Complete linkage is monotone: the merges below a height are the first ones.
        n_classes = count if below is None else count - int((tree[:, 2] < below).sum())
    groups = cut_tree(tree, n_clusters=n_classes)[:, 0]
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int64)


def class_values(
    centroids: NDArray[np.float32], tally: ClusterTally, spec: ClusterSpec
) -> tuple[NDArray[np.int64], float]:
    """Merge clusters into classes, and number these by decreasing share.

    Returns
    -------
    tuple
        ``(C,)`` class value of each cluster, from 1; of classes of equal share, that of the first cluster
        comes first. And the distance below which clusters were merged, see :func:`merge_clusters`.

    Raises
    ------
    UsageError
        More classes than clusters are requested, or both attention and the number of classes are missing.
    """
    count = len(centroids)
    if spec.classes is not None and spec.classes > count:
        raise UsageError(
            f"cluster: found {spec.classes} classes, expected at most the number of clusters, {count}"
        )
    check_attention(tally.attention is not None, spec)
    group, threshold = merge_clusters(centroids, tally, spec)
    sizes = np.bincount(group, tally.pixels)
    value_of = np.empty(len(sizes), np.int64)
    value_of[np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
    return value_of[group], threshold


def merge_clusters(
    centroids: NDArray[np.float32], tally: ClusterTally, spec: ClusterSpec
) -> tuple[NDArray[np.int64], float]:
    """Merge clusters into classes, up to the semantic distance or to a number of classes.

    Returns
    -------
    tuple
        ``(C,)`` class of each cluster, numbered from 0, and the distance below which clusters were merged:
        NaN if the number of classes is given, or if there is no foreground and therefore one class.
    """
    distances = centroid_distances(centroids, spec.distance)
    if spec.classes is not None:
        return merge(distances, n_classes=spec.classes), float("nan")
    front = foreground(tally.density)
    threshold = spec.merge * semantic_distance(distances[np.ix_(front, ~front)], spec.bins, spec.edge)
    if np.isnan(threshold):
        return np.zeros(len(centroids), np.int64), threshold
    return merge(distances, below=threshold), threshold


def check_attention(known: bool, spec: ClusterSpec) -> None:
    """Check that clusters without attention are merged to a number of classes; else :class:`UsageError`."""
    if not known and spec.classes is None:
        raise UsageError(
            "cluster: found features without attention, expected the number of classes (--classes N)"
        )
