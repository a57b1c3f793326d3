"""Distances of pixels from those of a training, on features that are made up."""

import numpy as np
import pytest

from hrvol.segment.drift import COMPONENTS, FeatureCloud


def pixels(seed, n=600, width=40, shift=0.0, across=0.0):
    """Two classes that differ in the first column; all vary along few directions, and a little in each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 3, n)
    directions = np.random.default_rng(99).normal(size=(3, width))
    values = rng.normal(size=(n, 3)) @ directions + 0.3 * rng.normal(size=(n, width))
    values[:, 0] += 4 * labels + shift
    values[:, 1:] += across * np.random.default_rng(5).normal(size=width - 1)
    return values.astype(np.float32), labels


@pytest.fixture(scope="module")
def cloud():
    return FeatureCloud.of(*pixels(0), slice(0, 40))


def test_pixels_of_the_same_kind_have_a_distance_of_about_one(cloud):
    for seed in (0, 1, 2):
        assert 0.8 < np.median(cloud.distances(pixels(seed)[0])) < 1.2


@pytest.mark.parametrize("change", [{"shift": 30.0}, {"across": 2.0}])
def test_other_pixels_are_farther_inside_and_beside_the_components(cloud, change):
    near, far = (cloud.distances(pixels(3, **given)[0]) for given in ({}, change))
    assert np.median(far) > 1.5 * np.quantile(near, 0.95)


def test_the_distance_is_that_to_the_nearest_class(cloud):
    values, labels = pixels(4)
    single = FeatureCloud.of(values[labels == 1], labels[labels == 1], slice(0, 40))
    other = values[labels == 2]
    assert np.median(cloud.distances(other)) < 1.2 < np.median(single.distances(other))


def test_only_its_columns_count(cloud):
    values, labels = pixels(0)
    wide = np.concatenate([1000 * np.ones((len(values), 2), np.float32), values], axis=1)
    moved = FeatureCloud.of(wide, labels, slice(2, 42))
    assert moved.columns == (2, 42)
    np.testing.assert_allclose(moved.distances(wide), cloud.distances(values), rtol=1e-5)


def test_standardised_columns_need_no_common_unit():
    values, labels = pixels(0)
    units = np.geomspace(1e-3, 1e3, 40).astype(np.float32)
    plain, scaled = (
        FeatureCloud.of(v, labels, slice(0, 40), standardise=True) for v in (values, values * units)
    )
    np.testing.assert_allclose(scaled.distances(values * units), plain.distances(values), rtol=1e-2)


def test_sizes_are_bounded(cloud):
    assert cloud.components.shape == (COMPONENTS, 40)
    assert cloud.means.shape == (2, COMPONENTS)
    np.testing.assert_allclose(cloud.components @ cloud.components.T, np.eye(COMPONENTS), atol=1e-5)
    few = FeatureCloud.of(*pixels(0, n=20), slice(0, 40))
    assert few.components.shape == (5, 40)


def test_pixels_that_cannot_be_described_have_no_cloud():
    values, labels = pixels(0)
    assert FeatureCloud.of(values, labels, slice(0, 1)) is None  # no column beside the components
    assert FeatureCloud.of(values[:3], labels[:3], slice(0, 40)) is None
    assert FeatureCloud.of(np.ones_like(values), labels, slice(0, 40)) is None
