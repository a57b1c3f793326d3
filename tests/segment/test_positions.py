import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.recipe import ClusterSpec
from hrvol.segment.cas import fit_clusters
from hrvol.segment.estimators import nearest
from hrvol.segment.positions import position_directions, without


def _scene(n=4000, channels=24, seed=0):
    """Pixels of four kinds, each seen twice with a strong part that tells where the window lies."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(4, channels))
    places, _ = np.linalg.qr(rng.normal(size=(channels, 3)))
    kind = rng.integers(4, size=n)
    seen = [
        kinds[kind] + 6 * rng.normal(size=(n, 3)) @ places.T + 0.05 * rng.normal(size=(n, channels))
        for _ in range(2)
    ]
    return kind, [values.astype(np.float32) for values in seen], places


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_planted_directions_are_found_and_taken_off(seed):
    _, (a, b), places = _scene(seed=seed)
    found = position_directions(a - b, 3)
    # the same space: its projection of the planted directions is all of them
    assert np.linalg.norm(found.T @ places, "fro") ** 2 == pytest.approx(3, abs=1e-2)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-5)
    assert np.abs(without(a, found) @ places).max() < 0.05 * np.abs(a @ places).max()
    np.testing.assert_allclose(without(without(a, found), found), without(a, found), atol=1e-4)


def test_without_them_both_windows_say_the_same():
    kind, (a, b), _ = _scene()
    spec = ClusterSpec(clusters=4, classes=4)
    shares = {}
    for count in (0, 3):
        directions = position_directions(a - b, count)
        model = fit_clusters(without(a, directions), None, spec, directions=slice(0, a.shape[1]))
        # whole features: what was taken off the sample need not be taken off what is labelled
        shares[count] = (model.assign(a) != model.assign(b)).mean()
        if count:
            pure = np.bincount(kind * 4 + model.assign(a), minlength=16).reshape(4, 4).max(axis=1).sum()
            assert pure == len(kind)
    assert shares[0] > 0.3
    assert shares[3] == 0


def test_centroids_of_what_is_left_give_the_same_labels_to_whole_features():
    _, (a, b), _ = _scene()
    directions = position_directions(a - b, 3)
    rest = without(a, directions)
    model = fit_clusters(rest, None, ClusterSpec(clusters=6, classes=2), directions=slice(0, a.shape[1]))
    differ = nearest(model.centroids, a) != nearest(model.centroids, rest)
    assert differ.sum() <= 4  # of 4000: pixels half-way between two centroids, by rounding


def test_no_differences_no_directions():
    assert position_directions(np.empty((0, 5), np.float32), 3).shape == (5, 0)
    assert position_directions(np.ones((7, 5), np.float32), 0).shape == (5, 0)
    assert position_directions(np.zeros((7, 5), np.float32), 3).shape == (5, 0)
    # differences along one direction only
    assert position_directions(np.outer(np.arange(7), np.eye(5)[2]).astype(np.float32), 3).shape == (5, 1)
    values = np.arange(10, dtype=np.float32).reshape(2, 5)
    np.testing.assert_array_equal(without(values, np.zeros((5, 0), np.float32)), values)
