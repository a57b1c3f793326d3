import io
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier

from hrvol.errors import RecipeError
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators import estimators as module
from hrvol.segment.estimators.estimators import (
    fit_classifier,
    kmeans,
    make_classifier,
    nearest,
    probabilities,
)
from hrvol.segment.estimators.validate import check_fitted

KINDS = ["vote", "forest", "logistic", "ridge", "mlp", "boosting"]
pytestmark = pytest.mark.filterwarnings("error")


def _spec(kind, **changes):
    return ClassifierSpec(kind=kind, **{"trees": 12, "hidden": (16,), **changes})


def _data(n=400, k=3, seed=0, rare=1.0):
    rng = np.random.default_rng(seed)
    share = np.ones(k)
    share[-1] = rare
    labels = rng.choice([1, 3, 4][:k], n, p=share / share.sum()).astype(np.uint16)
    centres = np.array([[0, 0, 5, 0, 0], [2, 1, 5, 0, 0], [0, 0, 5, 2.5, 0], [0, 3, 5, 0, 0]])
    # Columns of very different scales, one of them constant, which the scaler has to handle.
    noise = rng.normal(size=(n, 5)) * [1, 1, 0, 1, 1]
    features = (centres[labels - 1] + noise) * [1, 1e3, 1, 1e-3, 1]
    return features.astype(np.float32), labels


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_gives_probabilities(kind):
    features, labels = _data()
    fitted = fit_classifier(_spec(kind), features, labels, seed=0)
    unseen, truth = _data(seed=1)
    p = probabilities(fitted, unseen)
    assert p.shape == (400, 3)
    assert p.dtype == np.float64
    assert np.allclose(p.sum(axis=1), 1)
    assert (p >= 0).all()
    assert (np.array([1, 3, 4])[p.argmax(axis=1)] == truth).mean() > 0.75
    check_fitted(fitted, kind, 5, (1, 3, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_two_classes_give_two_columns(kind):
    features, labels = _data(k=2)
    p = probabilities(fit_classifier(_spec(kind), features, labels, 0), features)
    assert p.shape == (400, 2)
    assert (np.array([1, 3])[p.argmax(axis=1)] == labels).mean() > 0.75


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_depends_on_the_seed_and_not_on_the_threads(kind):
    features, labels = _data()
    one, two = (probabilities(fit_classifier(_spec(kind), features, labels, 0, n), features) for n in (1, 2))
    assert np.array_equal(one, two)
    if kind in ("vote", "forest", "mlp"):
        other = probabilities(fit_classifier(_spec(kind), features, labels, 1), features)
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_weights_help_a_rare_class(kind):
    features, labels = _data(2000, rare=0.02)
    # Shallow trees and a leaf of 5: a full-depth forest fits the rare pixels with any weights.
    changes = {"max_depth": 3, "min_samples_leaf": 5}
    plain = fit_classifier(_spec(kind, class_weight=None, **changes), features, labels, 0)
    balanced = fit_classifier(_spec(kind, **changes), features, labels, 0)
    unseen, truth = _data(2000, seed=1, rare=0.02)
    rare = truth == 4
    recall = [(probabilities(e, unseen)[rare].argmax(axis=1) == 2).mean() for e in (plain, balanced)]
    assert recall[1] > recall[0] + 0.05


@pytest.mark.parametrize(
    ("given", "used"), [(2, 2), (50, 5), (0.4, 0.4), (1.0, 1.0), ("log2", "log2"), (None, None)]
)
def test_max_features_is_at_most_all_columns(given, used):
    features, labels = _data()
    spec = _spec("forest", max_features=given)
    assert make_classifier(spec, 5, 0).max_features == used
    fit_classifier(spec, features, labels, 0)


@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_max_features_below_one_is_refused(value):
    with pytest.raises(RecipeError, match=r"classifier\.max_features: found .* expected"):
        Recipe.from_dict({"classifier": {"max_features": value}})


def test_settings_reach_the_estimators():
    forest = make_classifier(_spec("forest", max_depth=7, min_samples_leaf=4, class_weight=None), 5, 3)
    assert (forest.n_estimators, forest.max_depth, forest.min_samples_leaf) == (12, 7, 4)
    assert (forest.class_weight, forest.random_state) == (None, 3)
    boosting = make_classifier(_spec("boosting", learning_rate=0.3), 5, 3)
    assert (boosting.max_iter, boosting.learning_rate, boosting.early_stopping) == (12, 0.3, False)
    assert make_classifier(_spec("logistic", regularisation=4.0), 5, 0)[-1].C == 0.25
    assert make_classifier(_spec("ridge", regularisation=4.0), 5, 0)[-1].alpha == 4.0
    assert make_classifier(_spec("mlp", regularisation=4.0), 5, 0)[-1].alpha == pytest.approx(4e-4)
    assert make_classifier(ClassifierSpec(kind="mlp"), 5, 0)[-1].hidden_layer_sizes == (100, 100, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_check_fitted_refuses_other_classes_columns_and_kinds(kind):
    features, labels = _data()
    fitted = fit_classifier(_spec(kind), features, labels, 0)
    with pytest.raises(ValueError, match=r"found a classifier of classes \(1, 3, 4\)"):
        check_fitted(fitted, kind, 5, (1, 2, 4))
    with pytest.raises(ValueError, match="found a classifier of 5 columns, expected 6"):
        check_fitted(fitted, kind, 6, (1, 3, 4))
    other = "logistic" if kind == "ridge" else "ridge"
    with pytest.raises(ValueError, match=f"kind {other}"):
        check_fitted(fitted, other, 5, (1, 3, 4))


def _with_nodes(forest, change):
    tree = forest.estimators_[4].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    change(nodes, int(np.flatnonzero(nodes["left_child"] != -1)[-1]))
    tree.__setstate__({**state, "nodes": nodes})
    return forest


def _set(name, value):
    def change(nodes, inner):
        nodes[name][inner] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("left_child", 10**6), "child out of range"),
        (_set("right_child", -7), "child out of range"),
        (_set("left_child", 0), "child out of range"),  # a loop
        (_set("feature", 5), "column out of range"),
        (_set("feature", -3), "column out of range"),
    ],
)
def test_check_fitted_refuses_trees_with_numbers_out_of_range(change, message):
    features, labels = _data()
    forest = _with_nodes(fit_classifier(_spec("forest"), features, labels, 0), change)
    assert type(forest) is RandomForestClassifier
    with pytest.raises(ValueError, match=message):
        check_fitted(forest, "forest", 5, (1, 3, 4))


def test_check_fitted_refuses_a_tree_that_claims_more_nodes_than_it_has():
    features, labels = _data()
    forest = fit_classifier(_spec("forest"), features, labels, 0)
    tree = forest.estimators_[0].tree_
    tree.__setstate__({**tree.__getstate__(), "node_count": 10**9})
    with pytest.raises(ValueError, match="found a tree of 1000000000 nodes"):
        check_fitted(forest, "forest", 5, (1, 3, 4))


@pytest.mark.parametrize(("name", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 99)])
def test_check_fitted_refuses_boosted_trees_with_numbers_out_of_range(name, value):
    features, labels = _data()
    boosting = fit_classifier(_spec("boosting"), features, labels, 0)
    boosting._predictors[2][1].nodes[name][0] = value
    with pytest.raises(ValueError, match=r"(child|column) out of range"):
        check_fitted(boosting, "boosting", 5, (1, 3, 4))


def _blobs(n=600, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    centres = np.array([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    return (centres[truth] + rng.normal(size=(n, 3))).astype(np.float32), truth


def test_kmeans_finds_the_middle_of_blobs():
    features, truth = _blobs()
    centroids = kmeans(features, 4, seed=0)
    assert centroids.dtype == np.float32
    assert centroids.shape == (4, 3)
    numbers = nearest(centroids, features)
    for number in range(4):
        assert len(set(numbers[truth == number])) == 1
        np.testing.assert_allclose(
            centroids[numbers[truth == number][0]], features[truth == number].mean(axis=0), atol=1e-4
        )


def test_kmeans_depends_on_the_seed_alone():
    features, _ = _blobs()
    kept = features.copy()
    one, again, other = (kmeans(features, 20, seed) for seed in (0, 0, 1))
    assert one.tobytes() == again.tobytes()
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(features, kept)


@pytest.mark.parametrize("count", [2, 5])
def test_kmeans_of_few_different_rows_repeats_centroids(count):
    features = np.tile(_blobs(count)[0], (50, 1))
    centroids = kmeans(features, 8, seed=0)
    assert centroids.shape == (8, 3)
    assert len(np.unique(nearest(centroids, features))) == count
    assert np.isfinite(kmeans(np.ones((30, 3), np.float32), 4, 0)).all()


def test_the_nearest_centroid_is_the_nearest_and_of_equals_the_first(monkeypatch):
    rng = np.random.default_rng(0)
    centroids, features = (rng.normal(size=(n, 7)).astype(np.float32) for n in (13, 1000))
    numbers = nearest(centroids, features)
    assert numbers.dtype == np.int64
    distances = ((features[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(numbers, distances.argmin(axis=1))
    monkeypatch.setattr(module, "_ROWS", 64)
    np.testing.assert_array_equal(nearest(centroids, features), numbers)
    twice = np.concatenate([centroids, centroids])
    np.testing.assert_array_equal(nearest(twice, features), numbers)
    assert nearest(centroids, features[:0]).shape == (0,)


@pytest.mark.parametrize("classes", [2, 5])
def test_forests_predict_the_bits_of_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    features = rng.normal(size=(700, 9)).astype(np.float32)
    labels = rng.integers(1, classes + 1, len(features))
    forest = RandomForestClassifier(30, class_weight="balanced", random_state=0)
    forest.fit(features[:400], labels[:400])
    np.testing.assert_array_equal(probabilities(forest, features), forest.predict_proba(features))


def test_a_vote_is_the_mean_of_a_forest_and_a_logistic_regression():
    features, labels = _data()
    vote, forest, logistic = (
        fit_classifier(_spec(kind), features, labels, 3) for kind in ("vote", "forest", "logistic")
    )
    unseen, _ = _data(seed=1)
    mean = (probabilities(forest, unseen) + probabilities(logistic, unseen)) / 2
    np.testing.assert_array_equal(probabilities(vote, unseen), mean)
    np.testing.assert_allclose(vote.predict_proba(unseen.astype(np.float64)), mean, atol=1e-12)
    assert set(vote.predict(unseen)) == {1, 3, 4}
    arrays = [
        sum(name.endswith(".npy") for name in zipfile.ZipFile(io.BytesIO(skops.io.dumps(stored))).namelist())
        for stored in (vote, [forest, logistic])
    ]
    assert arrays[0] == arrays[1] + 1  # each is in it once, and the classes are
    with pytest.raises(ValueError, match="found kind vote, expected the kind of a single estimator"):
        make_classifier(_spec("vote"), 5, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts, _: parts[:1], "found a vote of 1 estimators, expected 2"),
        (lambda parts, _: parts[::-1], "found a Pipeline, expected a classifier of kind forest"),
        (lambda parts, other: [other, parts[1]], r"found a classifier of classes \(1, 3\)"),
        (lambda parts, _: [_with_nodes(parts[0], _set("feature", 5)), parts[1]], "column out of range"),
    ],
)
def test_check_fitted_checks_each_estimator_of_a_vote(change, message):
    features, labels = _data()
    vote = fit_classifier(_spec("vote"), features, labels, 0)
    other = fit_classifier(_spec("forest"), *_data(k=2), 0)
    vote.estimators_ = change(vote.estimators_, other)
    with pytest.raises(ValueError, match=message):
        check_fitted(vote, "vote", 5, (1, 3, 4))


@pytest.mark.parametrize("kind", ["vote", "forest", "logistic"])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_grey_columns_are_used_by_a_share_of_the_trees_only(kind, share):
    features, labels = _data()
    fitted = fit_classifier(_spec(kind, grey_share=share), features, labels, 0, grey=(1, 3))
    parts = dict(zip(("forest", "logistic"), fitted.estimators_, strict=True)) if kind == "vote" else {}
    forest, logistic = (parts.get(name, fitted if kind == name else None) for name in ("forest", "logistic"))
    if forest is not None:
        uses_grey = [bool({1, 3} & set(member.tree_.feature)) for member in forest.estimators_]
        assert uses_grey == [True] * round(12 * share) + [False] * (12 - round(12 * share))
        assert len({member.random_state for member in forest.estimators_}) == 12
    if logistic is not None:
        changed = features.copy()
        changed[:, [1, 3]] = 9
        same = np.array_equal(probabilities(logistic, changed), probabilities(logistic, features))
        assert same == (share < 1)
    check_fitted(fitted, kind, 5, (1, 3, 4))
    if share == 1:
        plain = fit_classifier(_spec(kind), features, labels, 0)
        assert np.array_equal(probabilities(fitted, features), probabilities(plain, features))


def test_a_logistic_regression_has_the_stronger_penalty_by_default():
    assert pytest.approx(0.01) == make_classifier(_spec("logistic"), 5, 0)[-1].C
    assert make_classifier(_spec("ridge"), 5, 0)[-1].alpha == 1
    assert make_classifier(_spec("mlp"), 5, 0)[-1].alpha == pytest.approx(1e-4)
