"""Classes without labels: merging, attention density and nearest centroids."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.errors import InputError, UsageError
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.attention import ClusterTally, foreground
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.cluster_merging import centroid_distances, merge, merge_clusters, semantic_distance

pytestmark = pytest.mark.filterwarnings("error")

seeds = st.integers(0, 2**32 - 1)
few = st.integers(1, 9)
many = st.integers(2, 40)
lambdas = st.floats(0.05, 3)


def random_distances(count, rng):
    """Symmetric, all different."""
    distances = np.triu(rng.random((count, count)), 1)
    return distances + distances.T


def random_clusters(count, rng):
    """Centroids, and a tally of their pixels and attention."""
    centroids = rng.normal(size=(count, 5)).astype(np.float32)
    return centroids, ClusterTally(rng.integers(1, 99, count), rng.random(count) * 99)


def pairs(groups):
    """Which clusters share a group: the partition, independent of its numbers."""
    return groups[:, None] == groups[None]


def brute_force(distances, below=np.inf, n_classes=1):
    """Complete linkage by brute force: a list of groups."""
    groups = [{number} for number in range(len(distances))]
    while len(groups) > n_classes:
        apart, a, b = min(
            (max(distances[i, j] for i in groups[a] for j in groups[b]), a, b)
            for a, b in combinations(range(len(groups)), 2)
        )
        if apart >= below:
            break
        groups[a] |= groups.pop(b)
    return groups


def as_pairs(groups, count):
    together = np.zeros((count, count), bool)
    for group in groups:
        together[np.ix_(sorted(group), sorted(group))] = True
    return together


@settings(max_examples=50, deadline=None)
@given(few, seeds, st.floats(0, 1.2))
def test_merging_is_complete_linkage(count, seed, below):
    distances = random_distances(count, np.random.default_rng(seed))
    groups = merge(distances, below=below)
    assert groups.dtype == np.int64
    np.testing.assert_array_equal(pairs(groups), as_pairs(brute_force(distances, below), count))
    for n_classes in range(1, count + 1):
        expected = as_pairs(brute_force(distances, n_classes=n_classes), count)
        np.testing.assert_array_equal(pairs(merge(distances, n_classes=n_classes)), expected)


@settings(max_examples=50, deadline=None)
@given(many, seeds, st.floats(0, 1.2))
def test_no_two_clusters_of_a_class_are_farther_apart_than_the_threshold(count, seed, below):
    distances = random_distances(count, np.random.default_rng(seed))
    groups = merge(distances, below=below)
    assert distances[pairs(groups) & ~np.eye(count, dtype=bool)].max(initial=-1) < below
    for a, b in combinations(range(groups.max() + 1), 2):  # and none are left that could be one class
        assert distances[np.ix_(groups == a, groups == b)].max() >= below


@settings(max_examples=50, deadline=None)
@given(many, seeds, st.floats(0, 1.2), st.data())
def test_the_order_of_clusters_does_not_matter(count, seed, below, data):
    rng = np.random.default_rng(seed)
    distances = random_distances(count, rng)
    order = rng.permutation(count)
    shuffled = distances[np.ix_(order, order)]
    n_classes = data.draw(st.integers(1, count))
    for options in ({"below": below}, {"n_classes": n_classes}):
        together = pairs(merge(shuffled, **options))
        np.testing.assert_array_equal(together, pairs(merge(distances, **options)[order]))


@settings(max_examples=50, deadline=None)
@given(many, seeds, lambdas, st.sampled_from(["cosine", "euclidean"]), st.data())
def test_the_order_of_clusters_does_not_matter_with_attention(count, seed, factor, distance, data):
    rng = np.random.default_rng(seed)
    centroids, tally = random_clusters(count, rng)
    order = rng.permutation(count)
    shuffled = ClusterTally(tally.pixels[order], tally.attention[order])
    classes = data.draw(st.none() | st.integers(1, count))
    spec = ClusterSpec(clusters=count, merge=factor, distance=distance, classes=classes)
    groups, below = merge_clusters(centroids, tally, spec)
    again, same = merge_clusters(centroids[order], shuffled, spec)
    np.testing.assert_array_equal(pairs(again), pairs(groups[order]))
    assert below == same or (np.isnan(below) and np.isnan(same))


@settings(max_examples=50, deadline=None)
@given(many, seeds, lambdas, lambdas, st.sampled_from(["lower", "centre", "upper"]))
def test_more_merging_never_gives_more_classes(count, seed, one, two, edge):
    centroids, tally = random_clusters(count, np.random.default_rng(seed))
    (less, low), (more, high) = (
        merge_clusters(centroids, tally, ClusterSpec(clusters=count, merge=factor, edge=edge))
        for factor in sorted((one, two))
    )
    assert low <= high
    assert less.max() >= more.max()
    assert pairs(more)[pairs(less)].all()  # merged clusters stay merged


@settings(max_examples=30, deadline=None)
@given(many, seeds, st.booleans())
def test_the_number_of_classes_is_the_requested_one(count, seed, tied):
    rng = np.random.default_rng(seed)
    distances = random_distances(count, rng)
    if tied:
        distances = np.rint(3 * distances)
    for n_classes in range(1, count + 1):
        groups = merge(distances, n_classes=n_classes)
        assert len(np.unique(groups)) == n_classes
        _, first = np.unique(groups, return_index=True)  # numbered in order of first appearance
        assert (np.diff(first) > 0).all()


def test_clusters_at_the_threshold_stay_apart():
    distances = np.array([[0, 0.25], [0.25, 0]])
    assert merge(distances, below=0.25).tolist() == [0, 1]
    assert merge(distances, below=0.26).tolist() == [0, 0]
    assert merge(np.zeros((1, 1)), below=0.5).tolist() == [0]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_distances_between_centroids(seed):
    rng = np.random.default_rng(seed)
    centroids = rng.normal(size=(6, 4)).astype(np.float32)
    euclidean, cosine = (centroid_distances(centroids, name) for name in ("euclidean", "cosine"))
    for i, j in np.ndindex(6, 6):
        a, b = (centroids[k].astype(np.float64) for k in (i, j))
        assert euclidean[i, j] == pytest.approx(np.linalg.norm(a - b), abs=1e-12)
        angle = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine[i, j] == pytest.approx(1 - angle, abs=1e-12)
    lengths = rng.uniform(0.1, 9, (6, 1)).astype(np.float32)
    np.testing.assert_allclose(centroid_distances(centroids * lengths, "cosine"), cosine, atol=1e-6)


def test_a_centroid_at_the_origin_has_a_distance():
    assert np.isfinite(centroid_distances(np.eye(3, 2, dtype=np.float32), "cosine")).all()


def test_nearly_parallel_centroids_keep_their_distance():
    centroids = np.array([[1, 0], [1, 1e-5]], np.float32)
    assert centroid_distances(centroids, "cosine")[0, 1] == pytest.approx(5e-11, rel=1e-3)


@pytest.mark.parametrize(("edge", "expected"), [("lower", 0.4), ("centre", 0.5), ("upper", 0.6)])
def test_the_semantic_distance_is_the_mode(edge, expected):
    between = np.array([[0.0, 0.41, 0.5], [0.55, 0.9, 1.0]])
    assert semantic_distance(between, 5, edge) == pytest.approx(expected)


def test_of_equally_full_bins_the_first_counts():
    assert semantic_distance(np.array([0.0, 0.1, 0.9, 1.0]), 2, "upper") == 0.5


def test_the_semantic_distance_of_equal_distances_is_that_distance():
    for edge in ("lower", "centre", "upper"):
        assert semantic_distance(np.full((2, 3), 0.3), 20, edge) == 0.3
    assert np.isnan(semantic_distance(np.zeros((0, 4))))


def test_two_clusters_that_differ_in_attention_stay_two_classes():
    centroids = np.array([[1, 0], [0.999, 0.0447]], np.float32)
    tally = ClusterTally(np.array([5, 5]), np.array([1.0, 9.0]))
    assert len(set(merge_clusters(centroids, tally, ClusterSpec(clusters=2))[0])) == 2
    assert len(set(merge_clusters(centroids, tally, ClusterSpec(clusters=2, merge=1.1))[0])) == 1


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_attention_density_does_not_depend_on_how_an_image_is_cut(seed, rows, columns, clusters):
    rng = np.random.default_rng(seed)
    assigned = rng.integers(0, clusters, (12, 12))
    attention = rng.gamma(0.3, 4.0, (12, 12)).astype(np.float32)
    whole = ClusterTally.of(assigned, attention, clusters)
    tallies = [
        ClusterTally.of(assigned[box], attention[box], clusters)
        for y in range(0, 12, rows)
        for x in range(0, 12, columns)
        for box in [(slice(y, y + rows), slice(x, x + columns))]
    ]
    total = tallies[0]
    for tally in tallies[1:]:
        total += tally
    np.testing.assert_array_equal(total.pixels, whole.pixels)
    np.testing.assert_allclose(total.density, whole.density, rtol=1e-12)
    for number in range(clusters):
        inside = assigned == number
        expected = attention[inside].mean(dtype=np.float64) if inside.any() else np.nan
        assert whole.density[number] == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_tally_of_classes_is_that_of_their_clusters():
    tally = ClusterTally(np.array([1, 2, 0, 4]), np.array([3.0, 1.0, 0.0, 8.0]))
    merged = tally.merged(np.array([1, 0, 2, 1]), 3)
    assert merged.pixels.tolist() == [2, 5, 0]
    assert merged.pixels.dtype == np.int64
    assert merged.density.tolist()[:2] == [0.5, 2.2]
    assert np.isnan(merged.density[2])


def test_without_attention_there_is_no_density():
    tally = ClusterTally.of(np.array([0, 2]), None, 3)
    assert (tally + tally).attention is None
    assert tally.merged(np.array([0, 0, 1]), 2).attention is None
    assert np.isnan(tally.density).all()
    assert not foreground(tally.density).any()


def test_foreground_is_above_the_mean():
    assert foreground(np.array([1.0, 2.0, 9.0, np.nan])).tolist() == [False, False, True, False]
    third = 1 / 3
    assert not foreground(
        np.array([third, third * (1 + 2e-16), third])
    ).any()  # differences by rounding do not count


def blobs(seed=0, sizes=(300, 500, 200), spread=0.05):
    """Unit vectors around three axes, of which the last has high attention."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(3), sizes)
    features = np.eye(3, 6)[truth] + spread * rng.normal(size=(len(truth), 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), np.where(truth == 2, 4.0, 0.5).astype(np.float32), truth


DIRECTIONS = slice(0, 6)


def test_classes_are_ordered_by_size_and_divided_by_attention():
    features, attention, truth = blobs()
    clusters = fit_clusters(features, attention, ClusterSpec(clusters=12, classes=3), directions=DIRECTIONS)
    labels = clusters.of_cluster[clusters.assign(features)]
    np.testing.assert_array_equal(labels, np.array([2, 1, 3])[truth])  # in decreasing order of their share
    assert clusters.classes == (1, 2, 3)
    assert clusters.foreground == (3,)
    assert clusters.class_tally.pixels.tolist() == [500, 300, 200]
    np.testing.assert_allclose(clusters.class_tally.density, [0.5, 0.5, 4.0])
    assert np.isnan(clusters.semantic_distance)
    scaled = (features - clusters.mean) / clusters.scale
    nearest = ((scaled[:, None] - clusters.centroids[None]) ** 2).sum(axis=2).min(axis=1)
    assert clusters.temperature == pytest.approx(nearest.mean(), rel=1e-4)


def test_clusters_closer_than_foreground_to_background_become_one_class():
    features, attention, truth = blobs()
    spec = ClusterSpec(clusters=12, edge="lower", merge=0.9)
    clusters = fit_clusters(features, attention, spec, directions=DIRECTIONS)
    labels = clusters.of_cluster[clusters.assign(features)]
    assert clusters.foreground == (labels[-1],)
    assert not set(labels[truth == 2]) & set(labels[truth != 2])
    assert 0.5 < clusters.semantic_distance < 1.2


@pytest.mark.parametrize("attention", [1.0, 0.1, 0.0])
def test_uniform_attention_gives_one_background_class(attention):
    features, _, _ = blobs()
    flat = np.full(len(features), attention, np.float32)
    clusters = fit_clusters(features, flat, ClusterSpec(clusters=7), directions=DIRECTIONS)
    assert clusters.classes == (1,)
    assert clusters.foreground == ()
    assert np.isnan(clusters.semantic_distance)
    probabilities = clusters.class_probabilities(np.zeros((4, 7), np.float32))
    np.testing.assert_array_equal(probabilities, np.ones((4, 1), np.float32))
    requested = fit_clusters(features, flat, ClusterSpec(clusters=7, classes=3), directions=DIRECTIONS)
    assert requested.classes == (1, 2, 3)
    assert requested.foreground == ()


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 5))
def test_any_sample_gives_the_requested_classes_in_decreasing_order(seed, classes):
    features = np.random.default_rng(seed).normal(size=(60, 3)).astype(np.float32)
    clusters = fit_clusters(features, None, ClusterSpec(clusters=5, classes=classes), seed=seed % 100)
    assert clusters.classes == tuple(range(1, classes + 1))
    assert (np.diff(clusters.of_cluster) >= 0).all()
    shares = clusters.class_tally.pixels
    assert (np.diff(shares) <= 0).all()
    assert shares.sum() == 60
    np.testing.assert_array_equal(np.bincount(clusters.assign(features), minlength=5), clusters.tally.pixels)


def test_clusters_depend_on_the_seed_alone():
    features, attention, _ = blobs()
    spec = ClusterSpec(clusters=20)
    one, two = (fit_clusters(features, attention, spec, directions=DIRECTIONS, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.centroids, two.centroids)
    np.testing.assert_array_equal(one.tally.attention, two.tally.attention)
    other = fit_clusters(features, attention, spec, directions=DIRECTIONS, seed=4)
    assert not np.array_equal(one.centroids, other.centroids)


MIXED = np.concatenate(
    [
        blobs()[0],
        np.random.default_rng(5).normal(size=(1000, 5)) * [1, 1e3, 1e-3, 1, 1] + [0, 5e3, 2, -7, 0],
        np.full((1000, 1), 0.3),
        0.5 + 1e-7 * np.random.default_rng(6).normal(size=(1000, 1)),  # constant, but for rounding
    ],
    axis=1,
).astype(np.float32)
HYBRID = fit_clusters(
    MIXED, None, ClusterSpec(clusters=15, classes=4), directions=DIRECTIONS, source="hybrid"
)


def test_groups_of_features_weigh_the_same_whatever_their_units():
    scaled = (MIXED - HYBRID.mean) / HYBRID.scale
    np.testing.assert_array_equal(scaled[:, DIRECTIONS], MIXED[:, DIRECTIONS])
    others = scaled[:, 6:].astype(np.float64)
    np.testing.assert_allclose(others[:, :5].std(axis=0), 7**-0.5, rtol=1e-4)
    np.testing.assert_allclose(others.mean(axis=0), 0, atol=1e-3)
    assert np.abs(others[:, 5:]).max() < 1e-6
    assert ((others[:, :5] ** 2).sum(axis=1).mean()) == pytest.approx(5 / 7, rel=1e-3)


@pytest.mark.parametrize("cuts", [(0, 13), (0, 6, 13), (0, 1, 6, 7, 12, 13)])
def test_linear_maps_of_groups_add_up_to_the_scores(cuts):
    total = np.zeros((len(MIXED), 15))
    for start, stop in pairwise(cuts):
        weight, bias = HYBRID.linear(slice(start, stop))
        assert weight.dtype == bias.dtype == np.float32
        assert weight.shape == (15, stop - start)
        total += MIXED[:, start:stop].astype(np.float64) @ weight.T + bias
    scaled = (MIXED.astype(np.float64) - HYBRID.mean) / HYBRID.scale
    mu = HYBRID.centroids.astype(np.float64)
    np.testing.assert_allclose(total, 2 * scaled @ mu.T - (mu**2).sum(axis=1), atol=1e-4)
    labels = HYBRID.class_probabilities(total.astype(np.float32)).argmax(axis=1) + 1
    np.testing.assert_array_equal(labels, HYBRID.of_cluster[HYBRID.assign(MIXED)])


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(-3, 4))
def test_probabilities_are_those_of_the_nearest_centroid_of_each_class(seed, size):
    scores = (10**size * np.random.default_rng(seed).normal(size=(3, 4, 15))).astype(np.float32)
    kept = scores.copy()
    probabilities = HYBRID.class_probabilities(scores)
    np.testing.assert_array_equal(scores, kept)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (3, 4, 4)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(
        probabilities.argmax(axis=-1) + 1, HYBRID.of_cluster[scores.argmax(axis=-1)]
    )
    best = np.stack([scores[..., value == HYBRID.of_cluster].max(axis=-1) for value in HYBRID.classes], -1)
    exact = np.exp((best - best.max(axis=-1, keepdims=True)).astype(np.float64) / HYBRID.temperature)
    np.testing.assert_allclose(probabilities, exact / exact.sum(axis=-1, keepdims=True), rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("number", [3, 12, 30])
def test_probabilities_have_the_same_bits_for_any_memory_layout(number):
    rng = np.random.default_rng(number)
    of_cluster = np.sort(np.concatenate([np.arange(number), rng.integers(0, number, 40 - number)])) + 1
    clusters = replace(HYBRID, of_cluster=of_cluster, temperature=0.37)
    planes = rng.normal(size=(40, 9, 11)).astype(np.float32)
    scores = np.moveaxis(planes, 0, -1)
    expected = np.maximum.reduceat(scores, np.searchsorted(of_cluster, clusters.classes), axis=-1)
    expected -= expected.max(axis=-1, keepdims=True)
    expected = np.exp(expected / np.float32(0.37))
    expected /= expected.sum(axis=-1, keepdims=True)
    for same in (scores, np.ascontiguousarray(scores), np.asfortranarray(scores)):
        probabilities = clusters.class_probabilities(same)
        assert probabilities.dtype == np.float32
        assert probabilities.flags.c_contiguous
        np.testing.assert_array_equal(probabilities, expected)


def refused(error, match, features, attention=None, **spec):
    spec = ClusterSpec(**{"clusters": 10, "classes": 2, **spec})
    with pytest.raises(error, match=match) as caught:
        fit_clusters(features, attention, spec, source="a.zarr")
    assert "\n" not in str(caught.value)


def test_samples_that_cannot_be_clustered_are_refused():
    features, attention, _ = blobs()
    refused(UsageError, "without attention, expected the number of classes", features, classes=None)
    refused(InputError, "a.zarr: found 9 pixels, expected at least 10 ", features[:9])
    few = np.tile(features[:4], (100, 1))
    refused(InputError, "a.zarr: found 4 different groups of pixels, expected 10 clusters", few)
    refused(InputError, "a.zarr: found 1 different", np.ones_like(features), attention)
    for bad in (np.nan, np.inf):
        broken = features.copy()
        broken[7, 3] = bad
        refused(InputError, "a.zarr: found features that are not finite", broken, attention)


def test_as_many_pixels_as_clusters_are_enough():
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    clusters = fit_clusters(features, None, ClusterSpec(clusters=10, classes=10))
    assert clusters.class_tally.pixels.tolist() == [1] * 10
    assert clusters.temperature > 0
    assert np.isfinite(clusters.class_probabilities(np.zeros((1, 10), np.float32))).all()
