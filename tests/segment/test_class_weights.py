"""Weights of classes: what they do to probabilities, which are refused, and what fractions make of them."""

import math
from types import SimpleNamespace

import array_api_strict as strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.arrays import most_likely, on_host, to_host, where_is
from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import UsageError
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec, ClusterSpec
from hrvol.segment.class_weights import MOST_RATIO, ClassWeights, log_shift, named_factors, weighted
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.model.model import Model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.priors import assumed_prior, class_factors
from hrvol.segment.strokes import Samples

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


# Fractions

BALANCED = Recipe.from_dict({"features": {"kind": "classical"}})
PLAIN = BALANCED.with_(**{"classifier.class_weight": None})


def model_of(recipe, trained_on=(), classes=PHASES):
    """Return a model without an estimator: only its classes and records are read."""
    values = tuple(info.value for info in classes)
    classifier = PixelClassifier(recipe.classifier, values, 1, ())
    return Model(recipe, classes, (0, 1), classifier, None, ("grey",), trained_on=trained_on)


DRAWN = ({"samples": {"1": 10, "2": 20}}, {"samples": {"1": 10, "4": 60}})


def test_a_balanced_model_assumes_even_classes_and_others_their_samples():
    assert assumed_prior(model_of(BALANCED, DRAWN)) == pytest.approx([1 / 3] * 3)
    assert assumed_prior(model_of(PLAIN, DRAWN)) == pytest.approx([0.2, 0.2, 0.6])


@given(fractions=st.lists(st.floats(1e-4, 100), min_size=3, max_size=3), plain=st.booleans())
@settings(max_examples=40, deadline=None)
def test_factors_are_fractions_over_the_prior(fractions, plain):
    model = model_of(PLAIN if plain else BALANCED, DRAWN)
    factors = class_factors(ClassWeights.of(None, fractions), model)
    if factors is None:
        factors = (1, 1, 1)
    posterior = np.multiply(assumed_prior(model), factors)
    np.testing.assert_allclose(posterior / posterior.sum(), np.divide(fractions, sum(fractions)), rtol=1e-7)


def test_fractions_by_name_in_percent_or_in_order_are_one_request():
    model = model_of(PLAIN, DRAWN)
    requests = ([0.1, 0.3, 0.6], [10, 30, 60], {"2": 6, "pore": 1, "binder": 3}, (1e307, 3e307, 6e307))
    (factors,) = {class_factors(ClassWeights.of(None, fractions), model) for fractions in requests}
    assert factors == (0.5, 1.5, 1.0)


def test_fractions_that_are_the_prior_change_nothing():
    assert class_factors(ClassWeights.of(None, [1, 1, 1]), model_of(BALANCED)) is None
    assert class_factors(ClassWeights.of(None, [0.2, 0.2, 0.6]), model_of(PLAIN, DRAWN)) is None
    assert class_factors(ClassWeights(), model_of(PLAIN)) is None


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([0.5, 0.5], "found 2, expected 3, one for each of the classes"),
        ([], "found 0, expected 3"),
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
        class_factors(ClassWeights.of(None, fractions), model_of(BALANCED))
    assert "pore (1), binder (2), 2 (4)" in str(refused.value)


@pytest.mark.parametrize(
    "trained_on",
    [(), ({},), ({"samples": {"1": 4, "2": 5}},), ({"samples": [1]},), ({"samples": {"1": -1, "2": "x"}},)],
)
def test_without_a_record_of_samples_fractions_are_refused(trained_on):
    with pytest.raises(UsageError, match="no record of the training samples"):
        class_factors(ClassWeights.of(None, [1, 2, 3]), model_of(PLAIN, trained_on))
    assert class_factors(ClassWeights.of({"pore": 2}, None), model_of(PLAIN, trained_on)) == (2, 1, 1)


def test_a_product_of_classifiers_has_no_single_prior():
    hybrid = {"features": {"kind": "hybrid"}, "combine": "product"}
    assert assumed_prior(model_of(Recipe.from_dict(hybrid))) == pytest.approx([1 / 3] * 3)
    unbalanced = Recipe.from_dict(hybrid | {"classifier": {"class_weight": None}})
    with pytest.raises(UsageError, match="combine: product"):
        assumed_prior(model_of(unbalanced, DRAWN))


def test_clusters_assume_their_shares_of_the_sample():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 0.1, (900, 2)), rng.normal(3, 0.1, (100, 2))]).astype(np.float32)
    clusters = fit_clusters(features, None, ClusterSpec(clusters=2, classes=2))
    model = SimpleNamespace(classifier=clusters, classes=default_classes([1, 2]), recipe=BALANCED)
    assert assumed_prior(model) == pytest.approx([0.9, 0.1])
    assert class_factors(ClassWeights.of(None, [9, 1]), model) is None
    assert class_factors(ClassWeights.of(None, [0.72, 0.28]), model) == pytest.approx((0.8, 2.8))


@pytest.mark.parametrize("balanced", [True, False])
def test_true_fractions_move_the_labelled_ones_towards_the_truth(balanced):
    rng = np.random.default_rng(1)
    true = np.array([0.9, 0.08, 0.02])

    def draw(counts):
        labels = np.repeat([1, 2, 3], counts).astype(np.uint16)
        features = rng.normal(labels[:, None] * [[1.0, 0.4]], 0.5).astype(np.float32)
        return Samples(features, labels, np.zeros(len(labels), np.int32))

    spec = ClassifierSpec(kind="logistic", regularisation=1, class_weight="balanced" if balanced else None)
    drawn = draw([300, 300, 600])
    recipe = BALANCED.with_(classifier=spec)
    classes = default_classes([1, 2, 3])
    classifier = PixelClassifier.fit(drawn, spec)
    samples = {str(value): count for value, count in drawn.counts().items()}
    model = Model(recipe, classes, (0, 1), classifier, None, ("a", "b"), trained_on=({"samples": samples},))
    seen = draw((50_000 * true).astype(int))
    plain = classifier.predict_proba(seen.features).T
    factors = class_factors(ClassWeights.of(None, true), model)
    errors, right = [], []
    for plane in (plain, weighted(plain, factors)):
        labels = labels_of(plane)
        errors.append(np.abs(np.bincount(labels, minlength=4)[1:] / labels.size - true).sum())
        right.append((labels == seen.labels).mean())
    assert errors[1] < 0.3 * errors[0]
    assert right[1] > right[0] + 0.05
    # Calibrated probabilities have the fractions as their mean.
    np.testing.assert_allclose(weighted(plain, factors).mean(axis=1), true, atol=0.01)
