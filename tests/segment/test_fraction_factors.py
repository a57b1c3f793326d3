"""Factors by fractions: labels have the shares that are requested, whatever the probabilities are worth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.arrays import most_likely
from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import UsageError
from hrvol.segment.class_weights import MOST_RATIO, ClassWeights, weighted
from hrvol.segment.fraction_factors import CLOSE, fraction_factors, fraction_shares

PHASES = default_classes([1, 2, 4], ["pore", "binder", "2"])
KINDS = ("calibrated", "sharp", "biased")


def drawn(kind, count, seed, voxels=4000):
    """Return true shares, labels, probabilities (K, n) float32 and weights of voxels."""
    rng = np.random.default_rng(seed)
    true = np.maximum(rng.dirichlet(np.full(count, 1.0)), 0.004)
    true /= true.sum()
    labels = rng.choice(count, voxels, p=true)
    signal = rng.normal(0, 1, (count, voxels))
    signal[labels, np.arange(voxels)] += 2
    logits = 2 * signal + np.log(true)[:, None]  # the posterior of two normal distributions two apart
    if kind == "sharp":
        logits *= 4
    if kind == "biased":
        logits = 2 * logits + rng.normal(0, 3, (count, 1))
    odds = np.exp(logits - logits.max(axis=0))
    weights = rng.uniform(0.5, 2, voxels)
    return true, labels, (odds / odds.sum(axis=0)).astype(np.float32), weights


def shares_of(labels, weights, count):
    return np.bincount(labels, weights, count) / weights.sum()


@given(kind=st.sampled_from(KINDS), count=st.integers(2, 20), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_labels_have_the_fractions(kind, count, seed):
    true, _, probabilities, weights = drawn(kind, count, seed)
    found = fraction_factors(probabilities, weights, true)
    labels = most_likely(weighted(probabilities, found.factors), range(count))
    reached = shares_of(labels, weights, count)
    np.testing.assert_allclose(reached, true, atol=2 * CLOSE)
    np.testing.assert_allclose(reached, found.shares, atol=CLOSE / 4)  # but for rounding
    assert max(found.factors) < MOST_RATIO * min(found.factors)
    assert found.factors[int(true.argmax())] == 1
    assert all(float(f"{factor:.4g}") == factor for factor in found.factors)
    assert fraction_factors(probabilities, weights, true) == found


@pytest.mark.parametrize("kind", KINDS)
def test_labels_get_better_where_probabilities_are_biased(kind):
    true, labels, probabilities, weights = drawn(kind, 4, 3, voxels=20_000)
    found = fraction_factors(probabilities, weights, true)
    before, after = (
        (most_likely(plane, range(4)) == labels).mean()
        for plane in (probabilities, weighted(probabilities, found.factors))
    )
    assert after > before + (0.05 if kind == "biased" else -0.02)


def test_shares_that_labels_have_already_need_no_factors():
    _, _, probabilities, weights = drawn("sharp", 5, 1)
    given_ = shares_of(probabilities.argmax(axis=0), weights, 5)
    assert fraction_factors(probabilities, weights, given_).factors == (1,) * 5


@given(rare=st.floats(1e-4, 0.01), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_rare_class_is_matched_more_closely_than_others(rare, seed):
    _, _, probabilities, _ = drawn("calibrated", 3, seed, voxels=30_000)
    target = np.array([rare, 0.4, 0.6 - rare])
    found = fraction_factors(probabilities, np.ones(30_000), target)
    assert found.shares[0] == pytest.approx(rare, rel=0.1, abs=2 / 30_000)


@given(trees=st.integers(2, 20), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_of_stepwise_shares_no_single_factor_gives_closer_ones(trees, seed):
    """Probabilities of few trees: many voxels change their label at the same factor."""
    _, _, smooth, _ = drawn("calibrated", 2, seed, voxels=2000)
    probabilities = np.round(smooth * trees) / trees
    weights, target = np.ones(2000), (0.3, 0.7)
    found = fraction_factors(probabilities, weights, target)
    odds = np.unique(probabilities[0] / np.maximum(probabilities[1], 1e-9))
    best = min(abs((probabilities[0] > probabilities[1] * t).mean() - 0.3) for t in [0, *odds * 1.001])
    assert abs(found.shares[0] - 0.3) <= max(best, CLOSE) + 1e-9


def test_a_class_that_cannot_be_reached_keeps_the_others_from_nothing():
    _, _, probabilities, weights = drawn("calibrated", 3, 0)
    never = np.concatenate([probabilities, np.zeros((1, 4000), np.float32)])
    found = fraction_factors(never, weights, (0.5, 0.2, 0.2, 0.1))
    assert found.shares[3] == 0
    assert max(abs(np.array(found.shares[:3]) - (0.5, 0.2, 0.2))) < 0.1 + CLOSE
    assert max(found.factors) < MOST_RATIO * min(found.factors)
    assert sum(found.shares) == pytest.approx(1)


def test_certain_voxels_stay_as_they_are():
    certain = np.eye(2, dtype=np.float32)[:, [0] * 70 + [1] * 30]
    found = fraction_factors(certain, np.ones(100), (0.2, 0.8))
    assert found.shares == pytest.approx((0.7, 0.3))
    assert np.isfinite(found.factors).all()


def test_one_class_and_one_voxel_are_enough():
    assert fraction_factors(np.ones((1, 5)), np.ones(5), (1.0,)).factors == (1,)
    assert fraction_factors(np.full((2, 1), 0.5), np.ones(1), (0.5, 0.5)).shares in ((1, 0), (0, 1))


# Requests


def requested(fractions, classes=PHASES):
    request = ClassWeights.of(None, fractions)
    assert request.fractions is not None
    return fraction_shares(request.fractions, classes)


def test_fractions_by_name_in_percent_or_in_order_are_one_request():
    requests = ([0.1, 0.3, 0.6], [10, 30, 60], {"2": 6, "pore": 1, "binder": 3}, (1e307, 3e307, 6e307))
    assert {requested(fractions) for fractions in requests} == {(0.1, 0.3, 0.6)}


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([0.5, 0.5], "found 2, expected 3, one for each of the classes"),
        ([], "found 0, expected 3"),
        ({}, "found 0, expected 3"),
        ({"pore": 0.1, "binder": 0.9}, "found 2, expected 3"),
        ({"pore": 0.1, "binder": 0.9, "1": 3}, "found pore twice"),
        ({"pore": 0.1, "glue": 0.9, "2": 3}, "found 'glue'"),
        ([0.5, 0.5, 0], "found the fraction 0, expected finite fractions above 0"),
        ([0.5, 0.5, -1], "found the fraction -1"),
        ([0.5, 0.5, math.nan], "found the fraction nan"),
        ([1, 1, 1e-13], "expected a ratio of at most 1e\\+12"),
    ],
)
def test_fractions_that_make_no_sense_list_the_classes(fractions, message):
    with pytest.raises(UsageError, match=message) as refused:
        requested(fractions)
    assert "pore (1), binder (2), 2 (4)" in str(refused.value)


def test_classes_of_one_name_cannot_have_fractions():
    twins = [ClassInfo(value, "phase", (0, 0, 0)) for value in (1, 2)]
    with pytest.raises(UsageError, match="found classes of the same name"):
        requested([1, 2], twins)
