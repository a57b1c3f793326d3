"""Weights of classes: what they do to probabilities, and which are refused."""

import math

import array_api_strict as strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.arrays import most_likely, on_host, to_host, where_is
from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import UsageError
from hrvol.segment.class_weights import MOST_RATIO, ClassWeights, log_shift, named_factors, weighted

LIBRARIES = {
    "strict": lambda values: strict.asarray(values, device=strict.Device("device1")),
    "torch": lambda values: torch.from_numpy(np.array(values)),
}
PHASES = default_classes([1, 2, 4], ["pore", "binder", "2"])
FACTOR = st.floats(1e-5, 1e5)


def chances(count=3, seed=0):
    """Return probabilities (K, 40, 30) float32, some of them 0 or all equal."""
    found = np.random.default_rng(seed).dirichlet(np.ones(count), (40, 30)).astype(np.float32)
    found[0, 0], found[0, 1] = 1 / count, np.eye(count)[-1]
    return np.ascontiguousarray(np.moveaxis(found, -1, 0))


def labels_of(plane):
    return most_likely(plane, range(1, len(plane) + 1))


# Arrays


@given(constant=FACTOR)
@settings(max_examples=30, deadline=None)
def test_equal_factors_change_nothing(constant):
    plane = chances()
    np.testing.assert_array_equal(weighted(plane, [constant] * 3), plane)


@given(factors=st.lists(FACTOR, min_size=3, max_size=3), constant=st.floats(1e-200, 1e200))
@settings(max_examples=60, deadline=None)
def test_only_ratios_of_factors_matter(factors, constant):
    plane = chances()
    ours, theirs = (weighted(plane, np.multiply(factors, c)) for c in (1, constant))
    np.testing.assert_array_equal(labels_of(ours), labels_of(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@given(factors=st.lists(FACTOR, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_labels_are_those_of_the_largest_products(factors):
    plane = chances()
    found = weighted(plane, factors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    products = plane.astype(np.float64) * np.reshape(factors, (3, 1, 1))
    np.testing.assert_allclose(found, products / products.sum(axis=0), rtol=1e-5, atol=1e-30)
    second, first = np.sort(products, axis=0)[-2:]
    clear = first > second * (1 + 1e-5)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels_of(found)[clear], products.argmax(axis=0)[clear] + 1)


@given(factors=st.lists(FACTOR, min_size=4, max_size=4), seed=st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_shift_of_logits_is_a_weight_of_probabilities(factors, seed):
    logits = np.random.default_rng(seed).normal(0, 3, (4, 20))
    shifted = logits + np.reshape(log_shift(factors), (4, 1))
    assert max(log_shift(factors)) == 0
    plane, expected = (np.exp(values) / np.exp(values).sum(axis=0) for values in (logits, shifted))
    np.testing.assert_allclose(weighted(plane, factors), expected, rtol=1e-9)


def test_a_certain_class_stays_certain_at_the_largest_ratio():
    plane = chances()
    found = weighted(plane, [1, 1, 1 / MOST_RATIO])
    assert np.isfinite(found).all()
    assert found[:, 0, 1].tolist() == [0, 0, 1]


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_probabilities_stay_where_they_are(move):
    plane = chances()
    there = weighted(move(plane), [0.3, 1, 7])
    assert not on_host(there)
    assert where_is(there) == where_is(move(plane))
    np.testing.assert_array_equal(to_host(there), weighted(plane, [0.3, 1, 7]))


def test_another_number_of_factors_is_refused():
    for factors in ([1, 2], []):
        with pytest.raises(UsageError, match=f"found {len(factors)} factors, expected 3"):
            weighted(chances(), factors)


# Requests


@given(first=FACTOR, second=FACTOR)
@settings(max_examples=30, deadline=None)
def test_classes_are_named_by_name_or_else_by_value(first, second):
    if first in (1, second):
        return
    assert named_factors((("pore", first), ("4", second)), PHASES) == (first, 1, second)
    assert named_factors((("2", first),), PHASES) == (1, 1, first)  # a name comes before a value


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([("poer", 2)], "found 'poer', expected one of the classes"),
        ([("3", 2)], "found '3', expected one of the classes"),
        ([("pore", 2), ("1", 3)], "found pore twice"),
        ([("pore", 0)], "found the factor 0, expected finite factors above 0"),
        ([("pore", -1)], "found the factor -1"),
        ([("pore", math.inf)], "found the factor inf"),
        ([("pore", math.nan)], "found the factor nan"),
        ([("pore", 1)], "found the factor 1 for each class"),
        ([("pore", 3), ("binder", 3), ("4", 3)], "found the factor 3 for each class"),
        ([("pore", 1e-7), ("binder", 1e7)], "from 1e-07 to 1e\\+07, expected a ratio of at most 1e\\+12"),
        ([("\x1b[2J", 2)], r"found '\\x1b\[2J'"),
    ],
)
def test_a_request_that_makes_no_sense_lists_the_classes(named, message):
    with pytest.raises(UsageError, match=message) as refused:
        named_factors(tuple(named), PHASES)
    assert "pore (1), binder (2), 2 (4)" in str(refused.value)


def test_classes_of_one_name_cannot_be_weighted():
    twins = [ClassInfo(value, "phase", (0, 0, 0)) for value in (1, 2)]
    with pytest.raises(UsageError, match=r"found classes of the same name.*phase \(1\), phase \(2\)"):
        named_factors((("1", 2.0),), twins)


def test_factors_and_fractions_exclude_each_other():
    with pytest.raises(UsageError, match="both factors and fractions"):
        ClassWeights.of({"pore": 2}, [0.5, 0.5])
    assert ClassWeights.of({}, None) == ClassWeights.of(None, None) == ClassWeights()


@pytest.mark.parametrize("request_", [({"pore": "much"}, None), (None, ["half", 1]), (None, {"pore": None})])
def test_what_is_no_number_is_refused(request_):
    with pytest.raises(UsageError, match="expected a number"):
        ClassWeights.of(*request_)
