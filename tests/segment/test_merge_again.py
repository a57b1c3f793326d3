"""Clusters of a fitted classifier merged again: with the same settings the same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.errors import UsageError
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.cluster_classifier import fit_clusters, merge_again
from hrvol.segment.cluster_merging import class_values

seeds = st.integers(0, 2**32 - 1)
specs = st.builds(
    ClusterSpec,
    clusters=st.just(7),
    merge=st.floats(0.05, 3),
    classes=st.none() | st.integers(1, 7),
    distance=st.sampled_from(["cosine", "euclidean"]),
)


def fitted(seed, spec, attention=True):
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(7, 4))[rng.integers(0, 7, 90)] + 0.2 * rng.normal(size=(90, 4))).astype(
        np.float32
    )
    weights = rng.gamma(1, size=90) if attention else None
    return fit_clusters(features, weights, spec, seed=seed % 1000)


def assert_same(one, other):
    for name in ("centroids", "of_cluster", "mean", "scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.tally.pixels, other.tally.pixels)
    np.testing.assert_array_equal(one.tally.attention, other.tally.attention)
    np.testing.assert_array_equal(one.semantic_distance, other.semantic_distance)
    assert one.temperature == other.temperature


@settings(max_examples=25, deadline=None)
@given(seeds, specs)
def test_the_settings_of_the_fit_give_the_fit(seed, spec):
    clusters = fitted(seed, spec)
    assert_same(merge_again(clusters, spec), clusters)


@settings(max_examples=25, deadline=None)
@given(seeds, specs, specs)
def test_merging_again_is_fitting_with_other_settings(seed, spec, other):
    """But for the order of the clusters of one class."""
    one, two = merge_again(fitted(seed, spec), other), fitted(seed, other)
    np.testing.assert_array_equal(one.semantic_distance, two.semantic_distance)

    def rows(clusters):
        table = np.column_stack([clusters.centroids, clusters.tally.pixels, clusters.tally.attention])
        return table[np.lexsort(table.T)], clusters.of_cluster[np.lexsort(table.T)]

    for mine, theirs in zip(rows(one), rows(two), strict=True):
        if len(np.unique(two.class_tally.pixels)) == len(two.classes):  # else equal shares are told by order
            np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 7))
def test_values_are_those_of_the_clusters_before(seed, classes):
    spec = ClusterSpec(clusters=7, classes=classes)
    clusters = fitted(seed, ClusterSpec(clusters=7, classes=3))
    values, _ = class_values(clusters.centroids, clusters.tally, spec)
    again = merge_again(clusters, spec)
    for centroid, value in zip(clusters.centroids, values, strict=True):
        assert value in again.of_cluster[(again.centroids == centroid).all(axis=1)]
    assert set(values) == set(range(1, classes + 1))
    assert (np.diff(again.class_tally.pixels) <= 0).all()


def test_what_clusters_cannot_be_merged_to_is_refused():
    clusters = fitted(0, ClusterSpec(clusters=7, classes=3), attention=False)
    with pytest.raises(UsageError, match="found 8 classes, expected at most the number of clusters, 7"):
        merge_again(clusters, ClusterSpec(classes=8))
    with pytest.raises(UsageError, match="without attention, expected the number of classes"):
        merge_again(clusters, ClusterSpec(clusters=7))
