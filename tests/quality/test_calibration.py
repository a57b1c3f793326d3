"""Calibration errors and temperatures of probabilities whose truth is known."""

import numpy as np
import pytest

from hrvol.quality.calibration import BINS, COLDEST, HOTTEST, Reliability, temperature_for, tempered


def drawn(heat, n=60_000, classes=3, seed=0):
    """Probabilities whose logarithms are ``heat`` times as large as they should be, and classes."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(classes, n))
    true = np.exp(logits) / np.exp(logits).sum(axis=0)
    truth = (rng.random(n) > true.cumsum(axis=0)).sum(axis=0).clip(max=classes - 1)
    return tempered(true, 1 / heat), truth


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_the_temperature_of_the_truth_is_found(heat):
    probabilities, truth = drawn(heat)
    target = np.eye(3)[truth].T
    found = temperature_for(probabilities, target)
    assert found == pytest.approx(heat, rel=0.03)
    before, after = (Reliability.of(p, truth).error for p in (probabilities, tempered(probabilities, found)))
    assert after < 0.012
    assert before > 0.05 or heat == 1


def test_weights_repeat_pixels():
    probabilities, truth = drawn(2.0, n=3000)
    target, weights = np.eye(3)[truth].T, np.where(truth == 1, 3.0, 1.0)
    rows = np.repeat(np.arange(3000), weights.astype(int))
    assert temperature_for(probabilities, target, weights) == pytest.approx(
        temperature_for(probabilities[:, rows], target[:, rows]), abs=1e-3
    )
    weighted, repeated = (
        Reliability.of(probabilities, truth, weights),
        Reliability.of(probabilities[:, rows], truth[rows]),
    )
    assert weighted.error == pytest.approx(repeated.error, abs=1e-12)


def test_an_error_is_that_of_the_bins():
    probabilities = np.array([[0.9, 0.9, 0.6, 0.6], [0.1, 0.1, 0.4, 0.4]])
    found = Reliability.of(probabilities, np.array([0, 1, 0, 0]))
    assert found.error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert found.counts.shape == (BINS,)
    confidence, right, share = found.points
    np.testing.assert_allclose(confidence, [0.6, 0.9])
    np.testing.assert_allclose(right, [1.0, 0.5])
    np.testing.assert_allclose(share, [0.5, 0.5])
    assert (found + found).error == pytest.approx(found.error)
    assert Reliability.of(np.empty((2, 0)), np.empty(0)).error == 0


def test_a_temperature_keeps_the_order_of_classes():
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 500).T.astype(np.float32)
    for temperature in (COLDEST, 0.5, 1.0, 2.0, HOTTEST):
        found = tempered(probabilities, temperature)
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(found.argmax(axis=0), probabilities.argmax(axis=0))
    assert tempered(probabilities, 1) is probabilities


def test_a_temperature_stays_in_its_bounds():
    always = np.tile([[0.6], [0.4]], 50)
    assert temperature_for(always, np.tile([[1], [0]], 50)) == pytest.approx(COLDEST, rel=0.01)
    assert temperature_for(always, np.tile([[0], [1]], 50)) == pytest.approx(HOTTEST, rel=0.01)
