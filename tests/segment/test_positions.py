import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.positions import PositionField, fit_field, n_terms, relative, terms

SIDE, PLANE, CHANNELS = 40, 90, 6


def _pairs(content, field, n=4000, seed=0):
    """Features of a network that adds a field, for pixels of a plane in two windows at random positions."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, PLANE - SIDE, (n, 2, 2))
    corners[:, 1] = np.clip(corners[:, 0] + rng.integers(-20, 21, (n, 2)), 0, PLANE - SIDE)
    low, high = corners.max(axis=1), corners.min(axis=1) + SIDE
    pixel = rng.integers(low, high)
    positions = [relative(pixel - corners[:, i], SIDE) for i in (0, 1)]
    features = [content[pixel[:, 0], pixel[:, 1]] + field.at(position) for position in positions]
    return pixel, positions, [values.astype(np.float32) for values in features]


def _field(seed=0, degree=3):
    rng = np.random.default_rng(seed)
    return PositionField(degree, rng.normal(size=(n_terms(degree), CHANNELS)).astype(np.float32))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_a_known_field_is_recovered_from_any_content(seed, degree):
    field = _field(seed, degree)
    rng = np.random.default_rng(seed + 1)
    for content in (np.zeros((PLANE, PLANE, CHANNELS)), 5 * rng.normal(size=(PLANE, PLANE, CHANNELS))):
        _, (here, there), (a, b) = _pairs(content, field, seed=seed)
        fitted = fit_field(a - b, here, there, degree)
        np.testing.assert_allclose(fitted.coefficients, field.coefficients, atol=0.02)


def test_content_that_depends_on_the_position_does_not_change_the_field():
    # always bright in the middle of the plane, as a sample in its container
    y, x = np.mgrid[:PLANE, :PLANE] - PLANE / 2
    content = np.repeat(3.0 * (np.hypot(y, x) < 30)[..., None], CHANNELS, axis=2)
    _, (here, there), (a, b) = _pairs(content, PositionField(2, np.zeros((5, CHANNELS), np.float32)))
    fitted = fit_field(a - b, here, there, 2)
    assert np.abs(fitted.coefficients).max() < 1e-4


def test_without_the_field_two_windows_agree():
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(4, CHANNELS))
    kind = rng.integers(4, size=(PLANE, PLANE))
    content = kinds[kind] + 0.02 * rng.normal(size=(PLANE, PLANE, CHANNELS))
    pixel, (here, there), (a, b) = _pairs(content, _field())
    fitted = fit_field(a - b, here, there, 3)
    shares = []
    for left, right in ((a, b), (a - fitted.at(here), b - fitted.at(there))):
        model = fit_clusters(left, None, ClusterSpec(clusters=4, classes=4), directions=slice(0, CHANNELS))
        shares.append((model.assign(left) != model.assign(right)).mean())
    assert shares[0] > 0.2
    assert shares[1] == 0
    pure = np.bincount(kind[pixel[:, 0], pixel[:, 1]] * 4 + model.assign(left), minlength=16).reshape(4, 4)
    assert pure.max(axis=1).sum() == len(pixel)


@pytest.mark.parametrize("degree", [1, 3, 6])
def test_the_mapped_field_is_the_map_of_the_field(degree):
    field = _field(degree=degree)
    weight = np.random.default_rng(1).normal(size=(5, CHANNELS)).astype(np.float32)
    shape = (21, 33)
    y, x = np.mgrid[: shape[0], : shape[1]]
    positions = np.stack([relative(y.ravel(), shape[0]), relative(x.ravel(), shape[1])], axis=1)
    expected = (field.at(positions) @ weight.T).reshape(*shape, 5)
    whole = field.mapped(weight, slice(0, 21), slice(0, 33), shape)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected, atol=1e-4)
    np.testing.assert_allclose(
        field.mapped(weight, slice(4, 9), slice(7, 30), shape), whole[4:9, 7:30], atol=1e-6
    )
    np.testing.assert_allclose(whole.mean(axis=(0, 1)), 0, atol=0.3)  # of the integral, not of few pixels


def test_positions_and_terms():
    np.testing.assert_allclose(relative(np.arange(4), 4), [-0.75, -0.25, 0.25, 0.75])
    assert n_terms(2) == 5
    assert terms(np.zeros((3, 2)), 2).shape == (3, 5)
    nothing = fit_field(np.empty((0, 3), np.float32), np.empty((0, 2)), np.empty((0, 2)), 2)
    np.testing.assert_array_equal(nothing.coefficients, np.zeros((5, 3)))
