"""Merge the clusters of a model again, to other classes: no features are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError
from hrvol.segment.cluster_classifier import ClusterClassifier, merge_again
from hrvol.segment.cluster_merging import class_values
from hrvol.segment.model.model import Model
from hrvol.training.cluster import cluster_recipe, name_clusters


@dataclass(frozen=True, eq=False)
class MergedClasses:
    """A model whose clusters are merged again.

    Attributes
    ----------
    model
        The model with the new classes.
    of_cluster
        ``(C,)`` int64 new class value of each cluster, in the order of the model before: the new model has
        its clusters sorted by their new classes.
    """

    model: Model
    of_cluster: NDArray[np.int64]


def merge_classes(model: Model, *, merge: float | None = None, classes: int | None = None) -> Model:
    """Merge the clusters that were found without labels again, to more or fewer classes.

    The clusters stay as they are, so this takes no volume and no network.

    Parameters
    ----------
    model
        A model of :func:`hrvol.fit_classes`, :func:`hrvol.cluster_volume` or ``hrvol cluster --model``.
    merge
        Scale of the merging distance (lambda): below 1 merges less, above 1 more.
    classes
        Merge until so many classes are left, instead; without both, the settings of the model's recipe.

    Returns
    -------
    Model
        The clusters with other classes, names and colours, numbered in falling order of their share; its
        recipe has the settings. With the settings of the model's own recipe, the model itself.

    Raises
    ------
    UsageError
        The model has no clusters, more classes than clusters are requested, or the features have no attention
        and ``classes`` is not given.
    RecipeError
        ``merge`` or ``classes`` is not above 0.
    """
    return merged(model, merge=merge, classes=classes).model


def merged(model: Model, *, merge: float | None = None, classes: int | None = None) -> MergedClasses:
    """Merge as :func:`merge_classes` does, and return the new class of each cluster, too."""
    clusters = model.classifier
    if not isinstance(clusters, ClusterClassifier):
        raise UsageError(f"{model.source}: found a model without clusters, expected one of hrvol cluster")
    count = len(clusters.of_cluster)
    if classes is not None and classes > count:
        raise UsageError(
            f"{model.source}: found {classes} classes, expected at most the number of clusters, {count}"
        )
    recipe = cluster_recipe(model.recipe, merge=merge, classes=classes)
    if recipe == model.recipe:  # tied distances do not matter then
        return MergedClasses(model, clusters.of_cluster)
    values, _ = class_values(clusters.centroids, clusters.tally, recipe.cluster)
    again = merge_again(clusters, recipe.cluster)
    return MergedClasses(
        replace(model, recipe=recipe, classes=name_clusters(again), classifier=again), values
    )
